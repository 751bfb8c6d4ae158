"""The benchmarks' own prompts, against what their repositories publish."""

import json
from pathlib import Path

import pytest
import yaml

from bench.benchmarks.registry import read_benchmark
from bench.errors import ConfigurationError
from bench.prompts import find_template, render
from bench.records import AnswerKind, Problem

FIVE = ("ten", "eleven", "twelve", "13", "14")


def _problem(
    benchmark: str,
    question: str,
    options: tuple[str, ...] = (),
    kind: AnswerKind = "choice",
    precision: int | None = None,
) -> Problem:
    return Problem(benchmark, "1", question, (Path("p1.png"),), options, "A", kind, "1", precision=precision)


def _asked(problem: Problem, name: str) -> str:
    return "".join("[image]" if "path" in part else part.get("text", "") for part in render(problem, name))


def test_mathvision_is_asked_for_a_box_before_question_and_options() -> None:
    problem = _problem("mathvision", "How many dots?\n<image1>", FIVE)
    assert _asked(problem, "mathvision_cot@1") == (
        'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
        'question, only one letter is allowed in the "\\boxed{}".\n'
        "How many dots?\n[image]\n(A) ten\n(B) eleven\n(C) twelve\n(D) 13\n(E) 14\n"
    )
    assert _asked(problem, "mathvision_direct@1") == (
        "How many dots?\n[image]\n(A) ten\n(B) eleven\n(C) twelve\n(D) 13\n(E) 14\n"
        "\nAnswer the question using a single word or phrase."
    )


def test_options_inside_the_image_are_left_out_only_for_mathvision() -> None:
    letters = tuple("ABCDE")
    assert _asked(_problem("mathvision", "Which?", letters), "plain@2") == "[image]Which?"
    assert _asked(_problem("mathvision", "Which?", tuple("EDCBA")), "plain@2") == (
        "[image]Which?\n(A) E\n(B) D\n(C) C\n(D) B\n(E) A"
    )
    assert _asked(_problem("mmmu_pro", "Which?", letters), "plain@2").endswith("\nE. E")


def test_official_asks_each_benchmark_in_its_own_way() -> None:
    names = {"mmmu_pro": "mmmu_pro_cot@1", "mathvision": "mathvision_cot@1"}
    names |= {"mathvista": "mathvista@1", "logicvista": "logicvista@1"}
    for benchmark, name in names.items():
        problem = _problem(benchmark, "Which?", FIVE)
        assert _asked(problem, "official@1") == _asked(problem, name)
    short = _problem("mmmu_pro", "Which?", FIVE)
    assert _asked(short, "official_direct@1") == _asked(short, "mmmu_pro_direct@1") != _asked(short, "official@1")


def test_a_template_of_one_benchmark_refuses_another_and_names_the_alternatives() -> None:
    with pytest.raises(ConfigurationError, match=r"'mathvista@1' is for mathvista, not for logicvista\. .* official@1"):
        render(_problem("logicvista", "Which?"), "mathvista@1")


def test_a_precision_that_mathvista_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="precision 3"):
        render(_problem("mathvista", "How long?", kind="float", precision=3), "mathvista@1")


@pytest.mark.real
def test_every_query_of_mathvista_testmini_is_met_letter_by_letter(benchmark_data: Path) -> None:
    queries = json.loads((benchmark_data / "mathvista/query.json").read_text(encoding="utf-8"))
    problems = read_benchmark("mathvista", benchmark_data / "mathvista", require_images=False).problems
    assert len(problems) == 1000
    for problem in problems:
        assert find_template("mathvista@1").text(problem) == queries[problem.id], problem.id


@pytest.mark.real
@pytest.mark.parametrize("way", ["cot", "direct"])
def test_mmmu_pro_is_asked_with_the_published_instructions(benchmark_data: Path, way: str) -> None:
    published = yaml.safe_load((benchmark_data / "mmmu_pro/prompts.yaml").read_text(encoding="utf-8"))[way]
    problems = read_benchmark("mmmu_pro", benchmark_data / "mmmu_pro", "standard10", require_images=False).problems
    raw = (benchmark_data / "mmmu_pro/records_standard10_1730.jsonl").read_text(encoding="utf-8")
    questions = {row["id"]: row["question"] for row in map(json.loads, raw.splitlines())}
    for problem in problems:
        lines = [f"{chr(ord('A') + place)}. {text}" for place, text in enumerate(problem.options)]
        expected = "\n".join([questions[problem.id], *lines, published["standard"]])
        assert find_template(f"mmmu_pro_{way}").text(problem) == expected, problem.id
    page = _problem("mmmu_pro", "", FIVE)
    assert _asked(page, f"mmmu_pro_{way}@1") == "[image]" + published["vision"]


@pytest.mark.real
def test_every_mathvision_record_is_asked_with_its_options_unless_they_are_letters(benchmark_data: Path) -> None:
    problems = read_benchmark("mathvision", benchmark_data / "mathvision", "test", require_images=False).problems
    letters = [problem for problem in problems if problem.options == tuple("ABCDE")]
    assert len(letters) == 384
    for problem in problems:
        text = find_template("mathvision_cot@1").text(problem)
        assert text.endswith(f"\n{problem.question}\n" if problem in letters or not problem.options else ")\n") or (
            text.endswith(f"(E) {problem.options[4]}\n")
        )
