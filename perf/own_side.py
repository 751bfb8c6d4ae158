"""The RL stage of this trainer on the small world, timed by its own timing.jsonl."""

import json
import time
from pathlib import Path

from bench.matrix.profile import load_profile
from bench.smallworld import checkpoint_path
from perf.trial import PROFILE, SEED, STAGES, Step, Trial, memory_mb, rl_config, write_trial_prompts
from vold.execution import Execution
from vold.training.rl import train_rl


def _execution(trial: Trial, steps: int) -> Execution:
    """The execution settings of the small profile, without an intermediate checkpoint."""
    execution = load_profile(PROFILE).settings.execution
    return execution.model_copy(update={"threads": trial.threads, "checkpoint_every": steps + 1})


def run_ours(trial: Trial, directory: Path) -> tuple[list[Step], float]:
    """All steps of ``train_rl`` from the timing.jsonl of the run, and the memory in MB after the first step."""
    config, run = rl_config(trial), directory / "run"
    ends: list[tuple[float, float]] = []
    train_rl(
        config,
        student=Path(trial.student),
        teacher=checkpoint_path("teacher") if trial.side == "vold" else None,
        prompts=write_trial_prompts(trial, directory),
        run=run,
        seed=SEED,
        execution=_execution(trial, config.steps),
        progress=lambda done, total, metrics: ends.append((time.process_time(), memory_mb("VmRSS"))),
    )
    timing, metrics = (
        [json.loads(line) for line in (run / name).read_text().splitlines()]
        for name in ("timing.jsonl", "metrics.jsonl")
    )
    clock = [0.0, *(seconds for seconds, _ in ends)]
    return [
        Step(row["tokens"], after - before, **{name: times.get(f"{name}_seconds", 0.0) for name in ("step", *STAGES)})
        for times, row, before, after in zip(timing, metrics, clock, clock[1:], strict=False)
    ], ends[0][1]
