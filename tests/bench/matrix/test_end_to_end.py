"""Real stages on random models: what a kill -9 must not change."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MATRIX = """\
schema: vold-bench/matrix@1
name: tiny
question: Does a killed run end as an undisturbed one?
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
    (root / "tiny.yaml").write_text(MATRIX)
    return root / "tiny.yaml"


def start(matrix: Path, where: Path) -> subprocess.Popen[str]:
    words = ["run-matrix", str(matrix), "--jobs", "1", "--store", str(where / "store"), "--reports", str(where)]
    program = [sys.executable, "-c", "from bench.cli import main; main()", *words]
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
    """What must not depend on how often a run was killed; accounts of time are left out."""
    names = {"metrics.jsonl", "traces.jsonl", "model.safetensors", "summary.json"}
    names |= {"verdicts.parquet", "responses.parquet"}
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("*-*/**/*") if path.name in names}


def tables(report: Path) -> dict[str, list[dict[str, str]]]:
    """Every table of a report by file, without the column of CPU time."""
    found = {}
    for path in report.glob("*.csv"):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        found[path.name] = [{name: row[name] for name in row if name != "train_minutes"} for row in rows]
    return found


@pytest.mark.slow
def test_kill_9_in_training_and_in_evaluation_changes_no_byte_of_the_results(matrix, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    finish(start(matrix, undisturbed))
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


@pytest.mark.slow
def test_a_stage_trained_on_its_own_is_the_one_of_the_matrix_and_its_directory_is_not_reused(matrix, tmp_path):
    finish(start(matrix, tmp_path))
    (sft,) = (tmp_path / "store").glob("sft-*")
    (traces,) = (tmp_path / "store").glob("traces-*")
    config = (
        f"schema: vold-bench/train@1\nstudent: {matrix.parent}/profiles/student\ntraces: {traces}/out/traces.jsonl\n"
        "run: mine\nseed: 5\nconfig: {steps: 6, batch_size: 4, max_length: 160}\nexecution: {device: cpu, threads: 1}\n"
    )
    (tmp_path / "sft.yaml").write_text(config)
    words = [sys.executable, "-c", "from bench.cli import main; main()", "train", "sft", str(tmp_path / "sft.yaml")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    weights = "out/model.safetensors"
    assert (tmp_path / "mine" / weights).read_bytes() == (sft / weights).read_bytes()
    (tmp_path / "sft.yaml").write_text(config.replace("steps: 6", "steps: 7"))
    again = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert again.returncode == 4 and "holds a run with other settings" in again.stderr
