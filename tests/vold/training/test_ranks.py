"""Training over two processes: it follows the trajectory of one process, resumes exactly, and ends together."""

import json
from pathlib import Path

import pytest
import torch

from bench.errors import ErrorClass, StageError
from bench.matrix.ranks import run_on_ranks
from tests.conftest import need
from tests.helpers import rank_training
from tests.vold.conftest import save_student, save_teacher
from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.models import load_student
from vold.training.progress import silent

# Otherwise both pytest workers would train every run of the shared fixture.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ranks")]
WORK = "tests.helpers.rank_training"
STRATEGIES = ("none", "zero2", "zero3", "zero2+offload", "zero3+offload")
ADAPTED = ("zero2+lora", "zero3+lora")
RUNS = [(stage, strategy) for stage in ("sft", "rl") for strategy in (*STRATEGIES, *ADAPTED)]
RUNS += [("rl_in_parts", strategy) for strategy in STRATEGIES]
POISONED = [("rl_poisoned", strategy) for strategy in STRATEGIES]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ranks")
    save_student(home / "student")
    save_teacher(home / "teacher")
    write_jsonl(home / "prompts.jsonl", [Prompt(f"p{i}", f"[{i}+1]solve", str(i % 10)) for i in range(20)])
    rows = [Trace(f"t{i}", f"[{i}+1]solve", f"{i}+1={i + 1}." * (1 + i % 3), True) for i in range(20)]
    write_jsonl(home / "traces.jsonl", rows)
    return home


@pytest.fixture(scope="module")
def uninterrupted(home: Path) -> Path:
    """Uninterrupted runs of every stage: on one process, and on two with every strategy."""
    need("deepspeed", "deepspeed")
    for stage in ("sft", "rl"):
        rank_training.train(stage, "none", home, home / f"{stage}-one", silent)
        rank_training.train(stage, "none+lora", home, home / f"{stage}-one+lora", silent)
    rank_training.train("rl_in_parts", "none", home, home / "rl_in_parts-one", silent)
    runs = [(stage, strategy, home / f"{stage}-{strategy}") for stage, strategy in [*RUNS, *POISONED]]
    run_on_ranks(2, f"{WORK}:train_all", (runs, home), home, silent)
    return home


def alone(stage: str, strategy: str, home: Path) -> Path:
    """The run on one process whose trajectory ``strategy`` must follow."""
    return home / f"{stage}-one{'+lora' if strategy.endswith('+lora') else ''}"


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("stage", "strategy"), RUNS)
def test_two_processes_follow_the_trajectory_of_one(stage: str, strategy: str, uninterrupted: Path) -> None:
    one, two = rows(alone(stage, strategy, uninterrupted)), rows(uninterrupted / f"{stage}-{strategy}")
    assert len(one) == len(two) == rank_training.STEPS
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        assert left["tokens"] == right["tokens"]
        if stage == "rl" and strategy.startswith("zero"):  # the gradients are split
            assert right.pop("gradient_norm_policy") is None is right.pop("gradient_norm_distill")
        for name in right:
            expected = None if left[name] is None else pytest.approx(left[name], rel=5e-6, abs=1e-6)
            assert right[name] == expected, (left["step"], name)


@pytest.mark.parametrize(("stage", "strategy"), RUNS)
def test_the_published_checkpoint_is_complete(stage: str, strategy: str, uninterrupted: Path) -> None:
    out = uninterrupted / f"{stage}-{strategy}" / "out"
    start, one, two = (
        load_student(path).model.state_dict()
        for path in (uninterrupted / "student", alone(stage, strategy, uninterrupted) / "out", out)
    )
    assert one.keys() == two.keys()
    moved = max(float((start[name] - two[name]).abs().max()) for name in two)
    assert moved > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=moved * 1e-2)
    for file in (uninterrupted / "student").iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            assert (out / file.name).read_bytes() == file.read_bytes()
    assert not (out.parent / "checkpoints").exists()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_that_is_not_finite_on_one_process_is_skipped_on_all(strategy: str, uninterrupted: Path) -> None:
    poisoned = rows(uninterrupted / f"rl_poisoned-{strategy}")
    assert [row["skipped"] for row in poisoned] == [0, 1, 0, 0, 0]
    assert poisoned[1]["loss"] is None and poisoned[0] == rows(uninterrupted / f"rl-{strategy}")[0]
    # The third step meets the weights of the second: its teacher, its prompts and its entropy are as they were.
    assert all(row["loss"] is not None for row in poisoned[2:])
    weights = load_student(uninterrupted / f"rl_poisoned-{strategy}" / "out").model.state_dict()
    assert all(value.isfinite().all() for value in weights.values())


def test_a_killed_run_over_two_processes_ends_bit_identical_to_one_never_killed(
    uninterrupted: Path, tmp_path: Path
) -> None:
    """SFT with ZeRO-2 and RL with ZeRO-3, one losing its first process and the other its second."""
    killed = [("sft", "zero2", "1"), ("rl", "zero3", "0")]
    for stage, strategy, rank in killed:
        arguments = (stage, strategy, uninterrupted, tmp_path / stage, rank)
        with pytest.raises(StageError, match=f"rank {rank} was ended by signal 9") as caught:
            run_on_ranks(2, f"{WORK}:train_and_die", arguments, tmp_path, silent)
        assert caught.value.error_class is ErrorClass.INFRASTRUCTURE
        assert [path.name for path in (tmp_path / stage / "checkpoints").iterdir()] == ["step-00000003"]
    with pytest.raises(ValueError, match="written by a run with zero2 over 2 processes, this one has whole weights"):
        rank_training.train("sft", "none", uninterrupted, tmp_path / "sft", silent)
    run_on_ranks(
        2, f"{WORK}:train_all", ([(*run[:2], tmp_path / run[0]) for run in killed], uninterrupted), tmp_path, silent
    )
    for stage, strategy, _ in killed:
        for file in ("metrics.jsonl", "out/model.safetensors"):
            resumed, never = tmp_path / stage / file, uninterrupted / f"{stage}-{strategy}" / file
            assert resumed.read_bytes() == never.read_bytes(), (stage, file)


def test_an_error_on_one_process_ends_all_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StageError, match=r"^ValueError: the traces of rank 1 are no traces$") as caught:
        run_on_ranks(2, f"{WORK}:refuse", (), tmp_path, silent)
    assert caught.value.error_class is ErrorClass.FAILED
    assert "the traces of rank 1 are no traces" in (tmp_path / "rank-1.log").read_text()
    assert caplog.messages == ["told by rank 0"], "the first rank's warnings reach whoever started it"
