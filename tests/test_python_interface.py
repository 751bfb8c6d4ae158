"""The public Python interface does what the command line does, and names synthetic data by their own name."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vold_bench
from bench.errors import ConfigurationError
from tests.helpers.evaluation_results import problems, write_result

# One worker runs the matrix that several tests read.
pytestmark = pytest.mark.xdist_group("interface")
ROOT = Path(__file__).resolve().parents[1]
MATRIX = """\
schema: vold-bench/matrix@1
name: interface
question: Does the interface read what a run wrote?
seeds: [5]
matrix:
  include:
    - {name: base, skip: [sft, rl]}
    - {name: cold_start, skip: [rl]}
analysis:
  sampled: {samples: 3}
  contrasts:
    - {id: I1, test: cold_start, against: base}
"""
PROFILE = """\
schema: vold-bench/profile@1
extends: small
about: a few steps and problems
models: {student: smallworld/student_a}
data:
  traces: smallworld/sft_check?n=16
  rl: smallworld/rl_check?n=16
  eval:
    mmmu_pro: smallworld/check?n=3
    mathvision: smallworld/check?n=3
    mathvista: smallworld/check?n=3
    logicvista: smallworld/check?n=3
    transcription: smallworld/check?n=3
"""
SETTINGS = {"sft.steps": 2, "sft.batch_size": 4, "eval.max_tokens": 8}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interface")
    (root / "few.yaml").write_text(PROFILE)
    (root / "interface.yaml").write_text(MATRIX)
    return root / "interface.yaml"


@pytest.fixture(scope="module")
def matrix(file: Path) -> vold_bench.Matrix:
    return vold_bench.run_matrix(
        file, profile=str(file.parent / "few.yaml"), settings=SETTINGS, store=file.parent / "store", reports=None
    )


@pytest.mark.slow
def test_a_matrix_that_was_run_can_be_opened_again_without_running_anything(
    matrix: vold_bench.Matrix, file: Path, tmp_path: Path
) -> None:
    profile, store = str(file.parent / "few.yaml"), file.parent / "store"
    again = vold_bench.open_matrix(file, profile=profile, settings=SETTINGS, store=store)
    assert again.missing == [] and again.arms == ["base", "cold_start"] and again.seeds == [5]
    assert again.students == ["student_a"] and set(again.verdicts["student"]) == {"student_a"}
    assert again.accuracy().equals(matrix.accuracy())
    assert len(again.verdicts) == 2 * 5 * 3 and "benchmark" not in again.verdicts
    reasoning = {
        "smallworld-chain-choice", "smallworld-chain-free", "smallworld-bars-integer", "smallworld-bars-choice"
    }  # fmt: skip
    assert set(again.verdicts["dataset"]) == {*reasoning, "smallworld-read"}
    assert bool(again.verdicts["synthetic"].all())
    assert set(again.sampled["dataset"]) == reasoning and len(again.sampled) == 2 * 4 * 3 * 3
    assert set(again.sampled["sample"]) == {0, 1, 2} and set(again.verdicts["sample"]) == {0}
    assert set(again.accuracy(sampled=True)["n"]) == {9}
    assert sorted(again.stages["kind"]) == ["eval", "eval", "sampled", "sampled", "sft", "traces"]
    losses = again.curves[again.curves["metric"] == "loss"]
    assert losses["step"].tolist() == [1, 2] and set(losses["arm"]) == {"cold_start"}
    assert again.report(tmp_path / "page").is_file()

    (contrast,) = again.contrasts().to_dict("records")
    means = again.accuracy().query("dataset != 'smallworld-read'").groupby("arm")["accuracy"].mean()
    assert (contrast["id"], contrast["test"], contrast["against"]) == ("I1", "cold_start", "base")
    assert contrast["difference"] == pytest.approx(means["cold_start"] - means["base"])
    assert (contrast["students"], contrast["runs"]) == (1, 1) and contrast["low"] <= contrast["difference"]
    assert again.contrasts(by_student=True).empty, "with one student there is nothing to tell apart"

    empty = vold_bench.open_matrix(file, profile=profile, settings=SETTINGS, store=tmp_path / "empty")
    assert empty.accuracy().empty and list(empty.accuracy()) == list(again.accuracy()) and len(empty.missing) == 6

    missing = vold_bench.open_matrix(file, profile=profile, settings={**SETTINGS, "sft.steps": 3}, store=store)
    assert len(missing.missing) == 3 and set(missing.verdicts["arm"]) == {"base"}
    assert len(vold_bench.results(store)) == 4


@pytest.mark.slow
def test_the_example_reads_a_store_and_writes_a_table_and_a_plot(
    matrix: vold_bench.Matrix, file: Path, tmp_path: Path
) -> None:
    # The settings of the run are part of what is read: the example takes them from a profile.
    stages = "stages: {sft: {steps: 2, batch_size: 4}, eval: {max_tokens: 8}}\n"
    (file.parent / "same.yaml").write_text(PROFILE + stages)
    words = [str(file), "--profile", str(file.parent / "same.yaml"), "--store", str(file.parent / "store")]
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "read_results.py"), *words, "--out", str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "smallworld-chain-free" in run.stdout and "mathvision" not in run.stdout
    assert (tmp_path / "accuracy.csv").read_text().count("cold_start") == 5
    assert "synthetic problems" in (tmp_path / "accuracy.svg").read_text()


@pytest.mark.slow
def test_evaluating_a_model_gives_its_result_and_the_second_time_reads_it(tmp_path: Path) -> None:
    options = {"data": "smallworld/check?n=4", "benchmarks": ["mathvista"], "max_tokens": 8, "engine": "builtin"}
    (result,) = vold_bench.evaluate("smallworld/student_a", store=tmp_path, **options)
    (row,) = result.accuracy().to_dict("records")
    assert (row["dataset"], row["synthetic"], row["n"]) == ("smallworld-bars-integer", True, 4)
    assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
    assert list(result.responses["text"]) and "benchmark" not in result.responses
    before = result.path.stat().st_mtime_ns
    assert vold_bench.evaluate("smallworld/student_a", store=tmp_path, **options)[0].path.stat().st_mtime_ns == before
    assert vold_bench.open_result("student_a", store=tmp_path) == result


def test_results_are_compared_on_the_problems_that_both_answered(tmp_path: Path) -> None:
    write_result(tmp_path / "a", problems(["1", "2", "3"]), {id: [r"\boxed{3}"] for id in ("1", "2", "3")}, model="a")
    texts = {"1": [r"\boxed{3}"], "2": [r"\boxed{4}"]}
    write_result(tmp_path / "b", problems(["1", "2"]), texts, model="b")
    comparison = vold_bench.compare(tmp_path / "a", tmp_path / "b", store=tmp_path / "store")
    assert comparison.difference.value == -0.5 and comparison.counts.n == 2


def test_predictions_are_scored(benchmark_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text('{"id": "1", "response": "Answer: B"}\n')
    scores = vold_bench.score(file, "mathvision", data=benchmark_data / "mathvision", split="test")
    assert len(scores.verdicts) == 1 and scores.accuracy in (0.0, 1.0) and len(scores.missing) > 100


def test_an_unknown_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such result"):
        vold_bench.open_result("nothing", store=tmp_path)


def test_every_public_name_is_documented() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name in vold_bench.__all__:
        assert getattr(vold_bench, name).__doc__ and f"`{name}" in page, name


def test_importing_the_interface_imports_nothing_heavy() -> None:
    code = "import sys, vold_bench; print(*{'torch', 'pandas', 'transformers', 'scipy', 'pydantic'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_example_imports_the_public_interface_alone() -> None:
    tree = ast.parse((ROOT / "examples" / "read_results.py").read_text(encoding="utf-8"))
    modules = {name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in (a.name for a in node.names)}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"argparse", "sys", "pathlib", "vold_bench"}
