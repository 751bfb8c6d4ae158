"""Comparisons of two evaluations: the layer that changed, the conclusion, and the counts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from scipy.stats import binomtest

from bench.cli import compare
from bench.cli.compare import conclusion
from bench.engines import Reply
from bench.errors import ConfigurationError, ExitCode
from bench.review.comparison import ResultComparison, compare_results
from bench.review.results import find_result
from bench.store import Store
from bench.summary import ScoringRecord, read, write
from tests.helpers.evaluation_results import problems, write_result
from vold.answers import VERSION

IDS = [f"q{number}" for number in range(20)]
RIGHT, WRONG = ["so it is \\boxed{3}"], ["so it is \\boxed{4}"]


def texts(right: set[int]) -> dict[str, list[str]]:
    return {id: RIGHT if number in right else WRONG for number, id in enumerate(IDS)}


def compared(a: Path, b: Path) -> ResultComparison:
    store = Store(a.parent)
    return compare_results(find_result(str(a), store), find_result(str(b), store))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_result(tmp_path / "a", problems(IDS), texts({0, 1, 2, 3}))


def test_the_difference_is_the_models_if_only_the_model_differs(base, tmp_path):
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS), texts(set(range(2, 14))), model="other"))
    assert [layer.name for layer in comparison.changed] == ["model"] and comparison.about_the_model
    assert comparison.problems.gained == tuple(("mathvision", f"q{n}") for n in range(4, 14))
    assert comparison.problems.lost == (("mathvision", "q0"), ("mathvision", "q1"))
    counts = comparison.counts
    assert (counts.both, counts.only_a, counts.only_b, counts.neither) == (2, 2, 10, 6)
    assert comparison.difference.value == pytest.approx(8 / 20)
    assert comparison.difference.p == pytest.approx(binomtest(2, 12).pvalue)
    assert "B is better than A: +40.0 points" in conclusion(comparison)


def test_perception_is_listed_and_is_not_part_of_the_mean(tmp_path: Path) -> None:
    """One reasoning problem of twenty is gained, and all ten transcriptions are lost."""
    images = [replace(p, benchmark="transcription", answer="x y", kind="text") for p in problems(list("abcdefghij"))]
    asked = [*problems(IDS), *images]
    paths = [
        write_result(tmp_path / name, asked, {**texts(right), **{p.id: [said] for p in images}}, model=name)
        for name, right, said in (("a", {0}, "x  y"), ("b", {0, 1}, "x"))
    ]
    comparison = compared(*paths)
    assert comparison.difference.value == pytest.approx(1 / 20)
    assert comparison.datasets["transcription"].value == pytest.approx(-1)
    assert comparison.pooled == ("mathvision",)
    assert len(comparison.problems.lost) == 10
    assert read(paths[0]).measures["avg@1"].value == pytest.approx(1 / 20)


def test_an_unresolved_difference_is_reported_with_the_detectable_effect(base, tmp_path):
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS), texts({0, 1, 2, 4}), model="other"))
    assert "not resolved" in conclusion(comparison) and "80 % power" in conclusion(comparison)


@pytest.mark.parametrize(
    ("changes", "layer"),
    [
        ({"template": "boxed@1"}, "prompt"),
        ({"blind": True}, "prompt"),
        ({"engine": {"name": "vllm"}}, "engine"),
        ({"engine": {"name": "builtin", "versions": {"torch": "2.12.0"}}}, "engine"),
        ({"max_tokens": 5}, "sampling"),
    ],
)
def test_other_settings_forbid_a_claim_about_the_model(changes, layer, base, tmp_path):
    comparison = compared(
        base, write_result(tmp_path / "b", problems(IDS), texts(set(range(20))), model="other", **changes)
    )
    assert comparison.changed[0].name == layer and not comparison.about_the_model
    assert conclusion(comparison).startswith(f"No claim about the model: {layer}")


def without(result: Path, *fields: str) -> Path:
    """The result without these fields of its first prompts."""
    summary = read(result)
    parts = {
        name: replace(part, prompt=replace(part.prompt, **dict.fromkeys(fields)))
        for name, part in summary.benchmarks.items()
    }
    write(replace(summary, benchmarks=parts), result)
    return result


def test_two_models_behind_servers_are_compared_and_unrecorded_layers_are_named(base, tmp_path, capsys):
    for name, right in (("one", {0, 1, 2, 3}), ("two", set(range(2, 14)))):
        engine = {"name": "openai", "model": name, "earlier": [{"name": "openai", "model": name, "batch": 2}]}
        result = write_result(tmp_path / name, problems(IDS), texts(right), model=name, engine=engine)
        without(result, "token_ids_sha256", "image_grids")
    comparison = compared(tmp_path / "one", tmp_path / "two")
    assert [layer.name for layer in comparison.changed] == ["model"] and comparison.about_the_model
    assert [layer.name for layer in comparison.unchecked] == ["token ids", "image grid", "engine"]
    assert conclusion(comparison).startswith(
        "Only the model differs in what is recorded; not checked because neither result records it: token ids, "
        "image grid and engine. B is better than A"
    )
    compare.compare(str(tmp_path / "one"), str(tmp_path / "two"), tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["unchecked"] == ["token ids", "image grid", "engine"]
    itself = conclusion(compared(tmp_path / "one", tmp_path / "one"))
    assert "not checked" in itself and "same evaluation" not in itself


@pytest.mark.parametrize("engine", [{"name": "openai", "pixel_factor": 28}, {"name": "vllm"}])
def test_other_images_or_another_engine_forbid_a_claim_about_served_models(engine, tmp_path):
    for name, used in (("one", {"name": "openai"}), ("two", engine)):
        write_result(tmp_path / name, problems(IDS), texts({0}), model=name, engine=used | {"model": name})
    comparison = compared(tmp_path / "one", tmp_path / "two")
    assert comparison.changed[0].name == "engine" and not comparison.about_the_model


def test_a_layer_that_only_one_result_records_forbids_the_claim(base, tmp_path):
    other = write_result(tmp_path / "b", problems(IDS), texts({0}), model="other")
    comparison = compared(base, without(other, "token_ids_sha256"))
    assert [(layer.name, layer.state) for layer in comparison.changed] == [
        ("token ids", "not recorded"),
        ("model", "differs"),
    ]
    assert not comparison.about_the_model and conclusion(comparison).startswith(
        "No claim about the model: token ids may"
    )


def test_changed_records_are_the_first_layer_and_counted(base, tmp_path):
    asked = [*problems(IDS[:18]), *problems(IDS[18:], question="2 + 1?")]
    comparison = compared(base, write_result(tmp_path / "b", asked, texts({0, 1, 2, 3})))
    assert (comparison.changed[0].name, comparison.changed[0].detail) == ("data", "2 of 20 shared records, such as q18")


def test_problems_of_one_result_only_are_left_out_of_the_difference(base, tmp_path):
    half = {id: given for id, given in texts({0, 1}).items() if id in IDS[:10]}
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS[:10]), half))
    assert (comparison.changed[0].name, comparison.difference.items) == ("selection", 10)
    assert comparison.difference.value == pytest.approx(-2 / 10)


def test_two_engines_of_one_model_are_compared_text_by_text(base, tmp_path):
    other = {**texts({0, 1, 2, 4}), "q19": ["a longer way to \\boxed{4}"]}
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS), other, engine={"name": "vllm"}))
    assert comparison.same_model and "the difference comes from engine" in conclusion(comparison)
    assert (comparison.counts.same_text, comparison.counts.same_length) == (17, 19)
    assert comparison.counts.only_a + comparison.counts.only_b == 2


def test_different_numbers_of_samples_are_paired_by_the_mean_of_each_problem(base, tmp_path):
    four = {id: [*RIGHT * 3, *WRONG] for id in IDS}
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS), four))
    assert comparison.changed[0].name == "sampling"
    assert comparison.difference.value == pytest.approx(3 / 4 - 4 / 20)
    assert len(comparison.problems.gained) == 16 and len(comparison.problems.lost) == 4


def test_an_evaluation_compared_with_itself_says_so(base):
    comparison = compared(base, base)
    assert comparison.changed == () and "same evaluation" in conclusion(comparison)


def test_results_without_a_common_problem_are_refused(base, tmp_path):
    other = write_result(tmp_path / "b", problems(["x"]), {"x": RIGHT})
    with pytest.raises(ConfigurationError, match="no problem in common"):
        compared(base, other)


def test_the_exit_code_tells_whether_a_claim_about_the_model_is_possible(base, tmp_path, capsys):
    other = write_result(tmp_path / "b", problems(IDS), texts({0}), model="other", template="boxed@1")
    with pytest.raises(typer.Exit) as ended:
        compare.compare(str(base), str(other), tmp_path, as_json=True)
    assert ended.value.exit_code == ExitCode.INCOMPLETE
    shown = json.loads(capsys.readouterr().out)
    assert shown["first_change"] == "prompt" and shown["about_the_model"] is False
    assert shown["problems"]["lost"] == [["mathvision", f"q{n}"] for n in (1, 2, 3)]
    other = write_result(tmp_path / "c", problems(IDS), texts({0}), model="other")
    compare.compare(str(base), str(other), tmp_path)
    assert "lost 3: mathvision:q1" in capsys.readouterr().out


def finished(store: Store, id: str, **settings) -> None:
    write_result(store.path(id) / "out", problems(IDS), texts({0}), **settings)
    (store.path(id) / "status.json").write_text("{}")


def test_a_result_is_found_by_id_by_the_start_of_its_id_and_by_model(tmp_path):
    store = Store(tmp_path)
    finished(store, "eval-0123", model="student_a")
    finished(store, "eval-0456", model="student_b")
    finished(store, "eval-0789", model="student_b", blind=True)
    for name in ("eval-0123", "eval-01", "smallworld/student_a"):
        assert find_result(name, store).id == "eval-0123"
    with pytest.raises(ConfigurationError, match=r"2 results have this name(.|\n)*eval-0789.*blind"):
        find_result("student_b", store)
    with pytest.raises(ConfigurationError, match="did you mean 'student_b'"):
        find_result("student_c", store)
    finished(store, "eval-0123.1", model="student_a")
    assert find_result("student_a", store).id == "eval-0123", "a result that --fresh renamed is found by its id only"
    assert find_result("eval-0123.1", store).id == "eval-0123.1"


def test_a_model_is_found_with_and_without_its_owner_and_by_its_name_on_the_command_line(tmp_path):
    store = Store(tmp_path)
    finished(store, "eval-0123", model="Qwen/one")
    for name in ("one", "Qwen/one", "hub:Qwen/one@main", "http://127.0.0.1:9/v1#Qwen/one"):
        assert find_result(name, store).id == "eval-0123"
    with pytest.raises(ConfigurationError, match="no such result"):
        find_result("other/one", store)


def test_failures_of_an_engine_do_not_count_against_the_model(base, tmp_path):
    rows = {"q0": Reply("no room", 0, "error"), "q1": Reply("no room", 0, "error")}
    broken = write_result(tmp_path / "b", problems(IDS), texts({0, 1, 2, 3}), model="other", replies=rows)
    for comparison, side in ((compared(base, broken), "B"), (compared(broken, base), "A")):
        assert [layer.name for layer in comparison.changed] == ["errors", "model"] and not comparison.about_the_model
        assert f"2 in error and 0 missing in {side}" in comparison.changed[0].detail
        assert conclusion(comparison).startswith("No claim about the model: errors may also explain")


def test_missing_responses_do_not_count_against_the_model(base, tmp_path):
    given = {id: said for id, said in texts({0, 1, 2, 3}).items() if id != "q5"}
    comparison = compared(base, write_result(tmp_path / "b", problems(IDS), given, model="other"))
    layer = next(layer for layer in comparison.changed if layer.name == "errors")
    assert "0 in error and 1 missing in B" in layer.detail and not comparison.about_the_model


def test_another_version_of_the_scoring_is_a_change(base, tmp_path):
    other = write_result(tmp_path / "b", problems(IDS), texts({0}))
    own = read(other)
    assert own.scoring == ScoringRecord("strict", VERSION)
    write(replace(own, scoring=ScoringRecord("strict", -1)), other)
    comparison = compared(base, other)
    assert [(layer.name, layer.state) for layer in comparison.changed] == [("scoring", "differs")]


def test_control_characters_of_a_result_do_not_reach_the_terminal(tmp_path, capsys):
    ids = ["\x1b]0;pwned\x07\x1b[2Jx", "b"]
    a, b = (
        write_result(tmp_path / name, problems(ids), {id: said for id in ids}, model=f"{name}\x1b[2J", engine=engine)
        for name, said, engine in (("a", RIGHT, {"name": "x\x1b[31m"}), ("b", WRONG, {"name": "y\x1b[31m"}))
    )
    with pytest.raises(typer.Exit):
        compare.compare(str(a), str(b), tmp_path)
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\x07" not in text
    assert r"mathvision:\x1b]0;pwned\x07\x1b[2Jx" in text and r"y\x1b[31m" in text


def test_synthetic_problems_have_their_data_sets_name_everywhere(tmp_path, capsys):
    a, b = (
        write_result(tmp_path / name, problems(IDS), texts(right), model=name, dataset="smallworld-chain-free")
        for name, right in (("a", {0}), ("b", {1}))
    )
    comparison = compared(a, b)
    assert (list(comparison.datasets), comparison.synthetic) == (["smallworld-chain-free"], ("smallworld-chain-free",))
    assert comparison.problems.gained == (("smallworld-chain-free", "q1"),)
    assert "mathvision" not in json.dumps(comparison.to_json()["datasets"])
    compare.compare(str(a), str(b), tmp_path)
    text = capsys.readouterr().out
    assert "gained 1: smallworld-chain-free:q1" in text
    assert "synthetic problems, not a benchmark: smallworld-chain-free" in text and "mathvision" not in text
