import re
from pathlib import Path

import pytest

from bench.benchmarks.registry import load_problems, read_benchmark
from bench.errors import ConfigurationError
from bench.prompts import TEMPLATES, PromptPart, find_template, prompt_hash, render
from bench.records import Problem


def _problem(question: str, images: int = 1, options: tuple[str, ...] = (), kind: str = "free") -> Problem:
    paths = tuple(Path(f"p{number}.png") for number in range(1, images + 1))
    return Problem("mathvision", "1", question, paths, options, "A", kind, "1")  # type: ignore[arg-type]


def _shown(parts: list[PromptPart]) -> str:
    return "".join(f"[{part['path']}]" if "path" in part else part.get("text", "") for part in parts)


def test_an_image_is_at_its_mark_in_any_order() -> None:
    assert _shown(render(_problem("See <image 2>, then <image1>.", 2))) == "See [p2.png], then [p1.png]."


def test_an_image_without_a_mark_goes_first() -> None:
    assert _shown(render(_problem("solve", 1))) == "[p1.png]solve"
    assert _shown(render(_problem("See <image 1>.", 2))) == "[p2.png]See [p1.png]."


def test_later_mentions_and_marks_without_an_image_stay_as_text() -> None:
    question = "<image1> Which side is opposite to <image3>? Look at <image1>."
    assert _shown(render(_problem(question, 1))) == "[p1.png] Which side is opposite to <image3>? Look at <image1>."


def test_options_follow_line_by_line_and_may_hold_images() -> None:
    problem = _problem("Which of <image 1>?", 2, ("<image 2>", "none"), "choice")
    assert _shown(render(problem)) == "Which of [p1.png]?\nA. [p2.png]\nB. none"


def test_a_page_without_a_question_is_asked_to_solve_and_repeats_no_options() -> None:
    assert _shown(render(_problem("", 1, ("ten", "twelve"), "choice"))) == "[p1.png]solve"


def test_a_page_without_a_question_has_the_instruction_alone_from_version_two_on() -> None:
    page = _problem("", 1, ("ten", "twelve"), "choice")
    boxed = r"Please reason step by step, and put your final answer within \boxed{}."
    assert _shown(render(page, "boxed@2")) == f"[p1.png]{boxed}"
    assert _shown(render(page, "plain@2")) == "[p1.png]solve"


@pytest.mark.parametrize("template", ["boxed", "cot", "direct", "boxed@1", "cot@1", "direct@1"])
def test_perception_is_asked_without_reasoning_whatever_the_template(template: str) -> None:
    shown = _shown(render(_problem("What does the sign say?", kind="text"), template))
    assert shown == (
        "[p1.png]What does the sign say?\n"
        "Answer with the text in the image alone, without reasoning and without an explanation."
    )
    assert _shown(render(_problem("read", kind="text"), "plain")) == "[p1.png]read"


def test_blind_leaves_images_out_and_the_text_alone() -> None:
    assert _shown(render(_problem("See <image 1>.", 1), blind=True)) == "See <image 1>."


def test_templates_add_their_instruction_after_question_and_options() -> None:
    problem = _problem("Which?", 0, ("x", "y"), "choice")
    boxed = r"Please reason step by step, and put your final answer within \boxed{}."
    assert _shown(render(problem, "boxed@1")) == f"Which?\nA. x\nB. y\n{boxed}"
    assert _shown(render(problem, "boxed")) == f"Which?\n(A) x\n(B) y\n{boxed}"
    assert _shown(render(problem, "direct")).endswith("option letter from the given choices directly.")
    assert "'Answer: X'" in _shown(render(problem, "cot@1"))


# SHA-256 of the three kinds of problem below; a wording that changes is a new version with a line of its own.
PINNED = {
    "plain@1": "f013169da145522e20f67054b6e8d7f1c4656632924abedea405f02b77ad8be1",
    "boxed@1": "5e0014a2e73cbab6b82e22a261ff9f872e903e750259c5238351f1bde5106148",
    "direct@1": "ef18b030d5e2a699dbc66ff844188e5af0915ea12fab78a1088e6a056f158e58",
    "cot@1": "7d887a44ed816439416c3d4e1b9b64432cde1bc09976235a42cc1771f6e63cd1",
    "plain@2": "8a2ee3528e48ddd06b98a712f0ac73d6ffba093ac039032936186e73acfa19a5",
    "boxed@2": "5418c41a09cc20e89528161ec7617f201f84ad9f4d5ed7e2cb61617aba2d39e8",
    "direct@2": "78fb063e3e7613138e3e0f31d10ac1efadb29afe4e47ca68b3862b7f0308cf2c",
    "cot@2": "60c522b45bfbd41f93d3cc0e2d2f5bdd24589433cc12d99d264df25c79b990b8",
}


def test_every_template_of_any_benchmark_is_pinned() -> None:
    """The benchmarks' own are compared with what is published."""
    assert PINNED.keys() == {
        name for name in TEMPLATES if name.partition("@")[0] in ("plain", "boxed", "direct", "cot")
    }


@pytest.mark.parametrize("name", PINNED)
def test_the_wording_of_a_published_template_does_not_change(name: str) -> None:
    options = {"choice": ("x", "y"), "choices": ("x", "y"), "free": ()}
    problems = [_problem("Which of <image 1>?", 1, given, kind) for kind, given in options.items()]
    assert prompt_hash([part for problem in problems for part in render(problem, name)]) == PINNED[name]


def test_an_unknown_template_offers_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="plain@1, boxed@1, direct@1, cot@1, plain@2"):
        render(_problem("x"), "boxed@9")


def test_the_hash_follows_text_and_image_bytes_but_not_their_place(tmp_path: Path) -> None:
    def hashed(folder: str, content: bytes, text: str) -> str:
        path = tmp_path / folder / "a.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return prompt_hash([{"type": "image", "path": str(path)}, {"type": "text", "text": text}])

    first = hashed("one", b"1", "x")
    assert hashed("two", b"1", "x") == first
    assert hashed("one", b"2", "x") != first
    assert hashed("one", b"1", "y") != first


@pytest.mark.real
def test_all_records_of_mathvision_testmini_render_with_their_image(benchmark_data: Path) -> None:
    problems = load_problems("mathvision", benchmark_data / "mathvision", "testmini")
    assert len(problems) == 304
    for problem in problems:
        parts = render(problem, "boxed@1")
        assert [part["path"] for part in parts if "path" in part] == [str(problem.images[0])]
        assert Path(problem.images[0]).is_file()


@pytest.mark.real
def test_marks_out_of_order_in_a_real_record_keep_their_numbers(benchmark_data: Path) -> None:
    problems = read_benchmark("mmmu_pro", benchmark_data / "mmmu_pro", "standard10", require_images=False).problems
    (problem,) = (problem for problem in problems if problem.id == "test_Geography_252")
    parts = render(problem)
    names = [Path(part["path"]).name for part in parts if "path" in part]
    assert names == [f"test_Geography_252_{number}.png" for number in range(1, 8)]
    # 35 marks: the first of each image has become the image, the others refer back to it.
    assert sum(part.get("text", "").count("<image ") for part in parts) == 35 - 7


@pytest.mark.real
def test_every_image_of_mmmu_pro_is_at_its_own_first_mention(benchmark_data: Path) -> None:
    problems = read_benchmark("mmmu_pro", benchmark_data / "mmmu_pro", "standard10", require_images=False).problems
    inside, unordered = 0, 0
    for problem in problems:
        text = find_template("plain@2").text(problem)
        mentions = list(dict.fromkeys(int(number) for number in re.findall(r"<image (\d+)>", text)))
        unordered += mentions != sorted(mentions)
        inside += any("<image " in option for option in problem.options)
        absent = [number for number in range(1, len(problem.images) + 1) if number not in mentions]
        names = [Path(part["path"]).stem for part in render(problem, "plain@2") if "path" in part]
        assert names == [f"{problem.id}_{number}" for number in (*absent, *mentions)], problem.id
    assert (inside, unordered) == (66, 58)
