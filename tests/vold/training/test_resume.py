"""A run that is killed after N steps and resumed equals one of 2N steps, and a full disk loses nothing."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from vold.config import OptimizerConfig, RLConfig, SFTConfig
from vold.execution import Execution
from vold.files import DiskFullError
from vold.models import load_student
from vold.training.optim import Optimizer
from vold.training.progress import Progress, silent
from vold.training.rl import train_rl
from vold.training.sft import train_sft
from vold.training.state import load_state

EXECUTION = Execution(threads=1, checkpoint_every=3)
STEPS = 7
Train = Callable[[Path, Progress], None]


# The border between the two parts of an RL run: at a training state, or between two of them.
PARTS = {"rl": {}} | {
    f"rl, border after {border}": {"schedule": "distill_then_reward", "distill_share": border / STEPS}
    for border in (2, 3, 4)
}


@pytest.fixture(params=["sft", *PARTS])
def train(request: pytest.FixtureRequest, student_path: Path, teacher_path: Path, prompts: Path, traces: Path) -> Train:
    decaying = OptimizerConfig(learning_rate=5e-3, warmup_steps=2, schedule="cosine")
    sft = SFTConfig(steps=STEPS, batch_size=6, optimizer=decaying)
    rl = RLConfig.model_validate(
        {"steps": STEPS, "prompts_per_step": 3, "group_size": 4, "max_new_tokens": 10, "optimizer": decaying,
         "max_refills": 1, "distill": {"weight": 0.1, "weight_end": 0.02, "schedule": "linear"},
         **PARTS.get(request.param, {})}
    )  # fmt: skip

    def run_sft(run: Path, progress: Progress) -> None:
        train_sft(sft, student=student_path, traces=traces, run=run, seed=3, execution=EXECUTION, progress=progress)

    def run_rl(run: Path, progress: Progress) -> None:
        train_rl(
            rl, student=student_path, teacher=teacher_path, prompts=prompts, run=run, seed=3, execution=EXECUTION,
            progress=progress,
        )  # fmt: skip

    return run_sft if request.param == "sft" else run_rl


def in_child(work: Callable[[], None]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def same_result(one: Path, two: Path) -> None:
    for name in ("metrics.jsonl", "out/model.safetensors", "out/config.json", "out/tokenizer.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_a_run_killed_twice_ends_bit_identical_to_one_never_killed(train: Train, tmp_path: Path) -> None:
    def kill_after(step: int) -> Progress:
        def kill(done: int, total: int, metrics: dict[str, float]) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)

        return kill

    train(tmp_path / "whole", silent)
    for step in (1, 5):  # before the first training state, and between two
        assert in_child(lambda step=step: train(tmp_path / "killed", kill_after(step))) == -signal.SIGKILL
    resumed: list[int] = []
    train(tmp_path / "killed", lambda done, total, metrics: resumed.append(done))
    assert resumed == [4, 5, 6, 7], "it continues from the newest checkpoint"
    same_result(tmp_path / "whole", tmp_path / "killed")
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_the_same_spec_trained_twice_gives_the_same_bytes(train: Train, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(tmp_path / name, silent)
    same_result(tmp_path / "one", tmp_path / "two")


def test_a_full_disk_keeps_the_training_state_and_the_run_resumes(train: Train, tmp_path: Path) -> None:
    """A limit on the file size simulates the full disk: the kernel fails the write after some bytes."""
    run = tmp_path / "full"

    def fill(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    def work() -> None:
        with pytest.raises(DiskFullError, match="the disk is full; free space and run again"):
            train(run, fill)

    assert in_child(work) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert load_file(run / "checkpoints" / "step-00000003" / "state.safetensors")
    resumed: list[int] = []
    train(run, lambda done, total, metrics: resumed.append(done))
    assert resumed == [4, 5, 6, 7] and (run / "out" / "model.safetensors").is_file()


def test_a_training_state_of_another_model_is_refused(train: Train, tmp_path: Path, student_path: Path) -> None:
    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop)
    other = load_student(student_path).model.model.visual
    with pytest.raises(ValueError, match="belongs to another model or version"):
        load_state(tmp_path / "run" / "checkpoints", Optimizer(other, OptimizerConfig(learning_rate=1), 3))
    state = tmp_path / "run" / "checkpoints" / "step-00000003" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        load_state(tmp_path / "run" / "checkpoints", Optimizer(other, OptimizerConfig(learning_rate=1), 3))
