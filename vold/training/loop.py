"""What every training loop does around its step: resume, journal, checkpoint, progress, publish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vold.config import Execution
from vold.models import LanguageModel, save_checkpoint
from vold.training.checkpoint import load_state, remove_states, save_state
from vold.training.health import Health
from vold.training.journal import Journal, Stopwatch, peak_memory
from vold.training.metrics import Metrics
from vold.training.optim import Optimizer
from vold.training.progress import Progress


@dataclass(frozen=True, slots=True)
class StepResult:
    """metrics: deterministic values; tokens: how many went through each part that the stopwatch timed."""

    metrics: Metrics
    tokens: dict[str, int]


def run_steps(
    step: Callable[[int, Stopwatch], StepResult],
    *,
    steps: int,
    model: LanguageModel,
    optimizer: Optimizer,
    run: Path,
    execution: Execution,
    progress: Progress,
) -> None:
    """Call ``step(index, stopwatch)`` for each index that is still to do, then publish ``run/out``.

    Continues bit-exactly from the newest checkpoint under ``run``; does nothing when ``run/out`` exists.
    """
    out, checkpoints = run / "out", run / "checkpoints"
    if out.exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    done = load_state(checkpoints, optimizer)
    metrics, timing = Journal(run / "metrics.jsonl", done), Journal(run / "timing.jsonl", done)
    health = Health(execution.health, metrics.earlier)
    for index in range(done, steps):
        watch = Stopwatch()
        with watch.part("step"):
            result = step(index, watch)
        row: Metrics = {"step": index + 1, **result.metrics}
        metrics.write(row := row | health.check(row))
        if (index + 1) % execution.checkpoint_every == 0 and index + 1 < steps:
            with watch.part("checkpoint"):
                save_state(checkpoints, optimizer, index + 1)
        times = {**watch.row(index + 1, result.tokens), "peak_memory_bytes": peak_memory(model.device)}
        timing.write(times)
        progress(index + 1, steps, {key: value for key, value in (row | times).items() if value is not None})
    save_checkpoint(model, out)
    remove_states(checkpoints)
