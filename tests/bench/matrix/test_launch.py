import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.errors import ErrorClass, InfrastructureError
from bench.matrix.launchers.base import longest_paths
from bench.matrix.launchers.local import LocalLauncher
from bench.matrix.plan import Plan, make_plan
from bench.matrix.run import MatrixRun, run_plan
from bench.store import StageOutcome, Store

REPOSITORY = Path(__file__).resolve().parents[3]


def control(store: Store, name: str) -> None:
    (store.root.parent / "control" / name).touch()


def run(matrix: Path, store: Store, **options) -> tuple[Plan, dict[str, StageOutcome]]:
    plan = make_plan(matrix, store, **options)
    return plan, run_plan(plan, store, jobs=2, console=Console(quiet=True), launcher=LocalLauncher(preload=()))


def artefacts(store: Store) -> dict[str, bytes]:
    """The results and metrics of all stages, without records of time and machine."""
    files = [path for path in store.root.glob("*/**/*") if path.name in ("result.json", "metrics.jsonl")]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in files}


def stage_of(plan: Plan, arm: str, kind: str, seed: int = 1) -> str:
    return next(cell.stages[kind] for cell in plan.cells if (cell.arm, cell.seed) == (arm, seed))


@pytest.mark.slow
def test_every_stage_runs_once_and_a_second_run_does_nothing(world):
    matrix, store = world
    plan, outcomes = run(matrix, store)
    assert {outcome.state for outcome in outcomes.values()} == {"done"} and len(outcomes) == len(plan.stages)
    for name in plan.stages:
        assert len(list(store.path(name).glob("pid-*"))) == 1, "more than one process worked on it"
        status = store.status(name)
        assert status is not None and status.state == "done" and status.cpu_seconds > 0
    before = artefacts(store)
    assert run(matrix, store)[1] == {}
    assert artefacts(store) == before


def test_a_stage_sees_the_artefacts_of_the_stages_before_it(world):
    matrix, store = world
    plan, _ = run(matrix, store, only=["mismatch+grpo_opd"], seeds=[2])
    result = json.loads((store.path(stage_of(plan, "mismatch+grpo_opd", "eval", 2)) / "out/result.json").read_text())
    kind, _, _, (rl,) = result
    assert kind == "eval" and json.loads(rl)[:3] == ["rl", 2, 30]
    assert json.loads(json.loads(rl)[3][0])[:3] == ["sft", 2, 20]


@pytest.mark.slow
def test_a_failed_stage_blocks_only_its_descendants(world):
    matrix, store = world
    plan = make_plan(matrix, store)
    bad = stage_of(plan, "teacher+grpo", "rl")
    control(store, f"refuse-{bad}")
    plan, outcomes = run(matrix, store)
    assert outcomes[bad].error_class is ErrorClass.FAILED
    assert "refuses as requested" in outcomes[bad].message
    lost = {name for name, outcome in outcomes.items() if outcome.state == "blocked"}
    assert lost == {stage_of(plan, "teacher+grpo", "eval")}
    assert all(store.done(name) for name in plan.stages if name not in {bad, *lost})
    assert MatrixRun(plan, outcomes, None).exit_code == 5
    assert "refuses as requested" in (store.work(bad) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("classes", "code"),
    [
        ([ErrorClass.CONFIGURATION, ErrorClass.CONFIGURATION], 4),
        ([ErrorClass.INFRASTRUCTURE], 6),
        ([ErrorClass.OUT_OF_MEMORY], 7),
        ([ErrorClass.CONFIGURATION, ErrorClass.INFRASTRUCTURE], 5),
        ([], 0),
    ],
)
def test_the_exit_code_is_the_one_that_all_failures_share(world, classes, code):
    outcomes = {f"rl-{i}": StageOutcome("failed", error) for i, error in enumerate(classes)}
    blocked = {f"eval-{i}": StageOutcome("blocked") for i in range(len(classes))}
    assert MatrixRun(make_plan(*world), outcomes | blocked, None).exit_code == code


@pytest.mark.slow
def test_the_next_run_repeats_only_what_failed(world):
    matrix, store = world
    plan = make_plan(matrix, store)
    bad = stage_of(plan, "teacher+grpo", "rl")
    control(store, f"refuse-{bad}")
    run(matrix, store)
    (store.root.parent / "control" / f"refuse-{bad}").unlink()
    _, outcomes = run(matrix, store)
    assert set(outcomes) == {bad, stage_of(plan, "teacher+grpo", "eval")}
    assert {outcome.state for outcome in outcomes.values()} == {"done"}


@pytest.mark.slow
def test_a_killed_stage_is_tried_again_and_resumes(world):
    matrix, store = world
    plan = make_plan(matrix, store)
    victim = stage_of(plan, "teacher+grpo", "sft")
    control(store, f"kill-{victim}")
    _, outcomes = run(matrix, store)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert len(list(store.path(victim).glob("pid-*"))) == 2
    rows = [json.loads(line)["step"] for line in (store.path(victim) / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(1, 21))
    status = store.status(victim)
    assert status is not None and status.attempts == 2


def test_out_of_memory_is_tried_again_with_smaller_pieces_and_declared(world):
    matrix, store = world
    control(store, "memory-traces")
    plan, outcomes = run(matrix, store, only=["teacher+sft_only"], seeds=[1])
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    status = store.status(stage_of(plan, "teacher+sft_only", "traces"))
    assert status is not None and status.degraded == {"micro_batch_tokens": 2048, "rollout_batch": 128}


def test_wrong_input_is_not_tried_again(world):
    matrix, store = world
    control(store, "refuse-traces")
    plan, outcomes = run(matrix, store, only=["teacher+sft_only"], seeds=[1])
    traces = stage_of(plan, "teacher+sft_only", "traces")
    assert len(list(store.work(traces).glob("pid-*"))) == 1
    assert outcomes[traces].state == "failed"


def test_a_full_disk_stops_new_stages_and_keeps_what_is_finished(world):
    matrix, store = world
    run(matrix, store, only=["base"])
    before = artefacts(store)
    control(store, "full-traces")
    plan, outcomes = run(matrix, store, only=["teacher+sft_only", "none+grpo"], seeds=[1])
    assert outcomes[stage_of(plan, "teacher+sft_only", "traces")].error_class is ErrorClass.INFRASTRUCTURE
    assert "stopped" in {outcome.state for outcome in outcomes.values()}
    assert MatrixRun(plan, outcomes, None).exit_code == 6
    assert before.items() <= artefacts(store).items()
    (store.root.parent / "control" / "full-traces").unlink()
    _, again = run(matrix, store, only=["teacher+sft_only", "none+grpo"], seeds=[1])
    assert {outcome.state for outcome in again.values()} == {"done"}


def test_two_runs_on_one_store_do_not_collide(world):
    matrix, store = world
    with store.lock("run"), pytest.raises(InfrastructureError, match="in use by process"):
        run(matrix, store)


def test_the_longest_path_adds_up_the_chain_of_stages(world):
    matrix, store = world
    plan = make_plan(matrix, store, only=["teacher+grpo_opd", "base"], seeds=[1])
    paths = longest_paths(plan.stages, dict.fromkeys(plan.stages, 1.0))
    lengths = {plan.stages[name].kind + str(len(plan.stages[name].needs)): length for name, length in paths.items()}
    assert lengths == {"traces0": 4, "sft1": 3, "rl1": 2, "eval1": 1, "eval0": 1}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_kill_9_of_the_run_leaves_no_orphan_and_the_next_run_ends_with_the_same_result(world, delay):
    matrix, store = world
    command = [sys.executable, "-m", "tests.helpers.fake_matrix", str(matrix), str(store.root)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    while not list(store.root.glob(".work/*/pid-*")):
        time.sleep(0.02)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    pids = {int(path.name.removeprefix("pid-")) for path in store.root.glob(".work/*/pid-*")}
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids)), "a stage continued without its run"
    assert len(list(store.root.glob("*-*/status.json"))) < len(make_plan(matrix, store).stages), "killed too late"

    done = subprocess.run(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    undisturbed = Store(store.root.parent / "undisturbed")
    run(matrix, undisturbed)
    assert artefacts(store) == artefacts(undisturbed)
