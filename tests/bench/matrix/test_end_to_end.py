"""Real stages with random models: neither kill -9 nor a second process may change the results."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Otherwise every worker would run the matrix of the shared fixture.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("matrix")]
REPOSITORY = Path(__file__).resolve().parents[3]
MATRIX = """\
schema: vold-bench/matrix@1
name: tiny
question: Does a killed run end like an undisturbed one?
seeds: [5]
matrix:
  include:
    - {name: base, skip: [sft, rl]}
    - {name: trained}
analysis:
  contrasts:
    - {id: H1, test: trained, against: base, min_effect: 2.0pp}
"""
PROFILE = """\
schema: vold-bench/profile@1
about: the small world's architectures with random weights
models: {student: ./student, teacher: ./teacher}
data:
  traces: smallworld/sft_check?n=16
  rl: smallworld/rl_check?n=32
  eval: {mathvision: "smallworld/check?n=12", logicvista: "smallworld/check?n=12"}
stages:
  traces: {max_new_tokens: 16}
  sft: {steps: 6, batch_size: 4, max_length: 160}
  rl: {steps: 8, prompts_per_step: 2, group_size: 4, max_new_tokens: 16, distill: {weight: 0.1}}
  eval: {max_tokens: 24, group_size: 2}
execution: {device: cpu, threads: 1, checkpoint_every: 2}
cost: {source: a guess, traces: 1, sft: 0.1, rl: 0.5, eval: 2}
"""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bench.smallworld.models import new_image_processor, new_student, new_teacher
    from bench.smallworld.tokenizer import build_tokenizer

    root = tmp_path_factory.mktemp("tiny")
    profiles = root / "profiles"
    tokenizer = build_tokenizer()
    for name, model in (("student", new_student(tokenizer, 1)), ("teacher", new_teacher(tokenizer, 2))):
        model.save_pretrained(profiles / name)
        tokenizer.save_pretrained(profiles / name)
    new_image_processor().save_pretrained(profiles / "student")
    (profiles / "small.yaml").write_text(PROFILE)
    (profiles / "ranks.yaml").write_text(PROFILE.replace("threads: 1", "threads: 1, processes: 2"))
    (root / "tiny.yaml").write_text(MATRIX)
    return root / "tiny.yaml"


@pytest.fixture(scope="module")
def undisturbed(matrix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store and reports of an uninterrupted run with one process per stage."""
    where = tmp_path_factory.mktemp("undisturbed")
    finish(start(matrix, where))
    return where


def start(matrix: Path, where: Path, *options: str) -> subprocess.Popen[str]:
    words = ["run-matrix", str(matrix), "--jobs", "1", "--store", str(where / "store"), "--report", str(where)]
    program = [sys.executable, "-c", "from bench.cli.main import main; main()", *words, *options]
    return subprocess.Popen(program, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-3000:]
    return errors


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def lines(store: Path, pattern: str) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in store.glob(pattern))


def results(store: Path) -> dict[str, bytes]:
    """The files that must not depend on how often a run was killed; records of time are not among them."""
    names = {"metrics.jsonl", "traces.jsonl", "model.safetensors", "summary.json"}
    names |= {"verdicts.parquet", "responses.parquet"}
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*-*/**/*") if path.name in names}


def tables(report: Path) -> dict[str, list[dict[str, str]]]:
    """Every table of a report by file name, without the column of CPU time."""
    tables = {}
    for path in report.glob("*.csv"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        tables[path.name] = [{name: row[name] for name in row if name != "train_minutes"} for row in rows]
    return tables


def test_kill_9_in_training_and_in_evaluation_changes_no_byte_of_the_results(matrix, undisturbed, tmp_path):
    disturbed = tmp_path / "disturbed"
    store = disturbed / "store"
    kill_when(start(matrix, disturbed), lambda: lines(store, ".work/sft-*/metrics.jsonl") >= 3)
    kill_when(start(matrix, disturbed), lambda: lines(store, ".work/rl-*/metrics.jsonl") >= 3)
    kill_when(start(matrix, disturbed), lambda: lines(store, ".work/eval-*/responses.jsonl") >= 5)
    assert lines(store, ".work/eval-*/responses.jsonl") < 24, "the evaluation was not in its middle"
    finish(start(matrix, disturbed))
    expected = results(undisturbed / "store")
    assert len(expected) == 2 + 2 * 2 + 2 * 3, "traces, two trainings, two evaluations"
    assert results(store) == expected
    assert tables(disturbed / "tiny") == tables(undisturbed / "tiny")

    accounts = {path: path.read_bytes() for path in store.glob("*-*/*.json*")}
    (disturbed / "tiny" / "index.html").unlink()
    assert "5 finished before, 0 to do" in finish(start(matrix, disturbed))
    assert {path: path.read_bytes() for path in store.glob("*-*/*.json*")} == accounts, "a stage ran again"
    assert (disturbed / "tiny" / "index.html").is_file()


def test_training_stages_on_two_processes_follow_those_on_one(matrix, undisturbed, tmp_path):
    finish(start(matrix, tmp_path, "--profile", "ranks", "--only", "trained", "--no-report"))
    for kind in ("sft", "rl"):
        (one,), (two,) = (list((where / "store").glob(f"{kind}-*")) for where in (undisturbed, tmp_path))
        assert one.name == two.name, "how a stage runs is not part of its identity"
        assert (two / "rank-1.log").exists() and not (one / "rank-1.log").exists()
        rows = [list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines())) for run in (one, two)]
        assert len(rows[0]) == len(rows[1]) == {"sft": 6, "rl": 8}[kind]
        for left, right in zip(*rows, strict=True):
            for name in left | right:
                expected = None if left[name] is None else pytest.approx(left[name], rel=1e-4, abs=1e-5)
                assert right[name] == expected, (kind, left["step"], name)


def test_a_stage_trained_on_its_own_is_the_one_of_the_matrix_and_its_directory_is_not_reused(
    matrix, undisturbed, tmp_path
):
    (sft,) = (undisturbed / "store").glob("sft-*")
    (traces,) = (undisturbed / "store").glob("traces-*")
    config = (
        f"schema: vold-bench/train@1\nstudent: {matrix.parent}/profiles/student\ntraces: {traces}/out/traces.jsonl\n"
        "run: mine\nseed: 5\nconfig: {steps: 6, batch_size: 4, max_length: 160}\nexecution: {device: cpu, threads: 1}\n"
    )
    (tmp_path / "sft.yaml").write_text(config)
    words = [
        sys.executable,
        "-c",
        "from bench.cli.main import main; main()",
        "train",
        "sft",
        str(tmp_path / "sft.yaml"),
    ]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    weights = "out/model.safetensors"
    assert (tmp_path / "mine" / weights).read_bytes() == (sft / weights).read_bytes()
    (tmp_path / "sft.yaml").write_text(config.replace("steps: 6", "steps: 7"))
    again = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert again.returncode == 4 and "holds a run with other settings" in again.stderr
