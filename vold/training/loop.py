"""What every training loop does around its step: resume, journal, checkpoint, progress, publish."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vold.config import Execution, Strict
from vold.models import LanguageModel, save_checkpoint
from vold.training.journal import Stopwatch
from vold.training.metrics import Metrics
from vold.training.optim import Optimizer
from vold.training.progress import Progress
from vold.training.record import RunRecorder
from vold.training.state import load_state, remove_states, save_state


@dataclass(frozen=True, slots=True)
class StepResult:
    """metrics: deterministic values; tokens: how many went through each part that the stopwatch timed."""

    metrics: Metrics
    tokens: dict[str, int]


def run_steps(
    step: Callable[[int, Stopwatch], StepResult],
    *,
    config: Strict,
    steps: int,
    model: LanguageModel,
    optimizer: Optimizer,
    run: Path,
    execution: Execution,
    progress: Progress,
) -> None:
    """Call ``step(index, stopwatch)`` for each index that is still to do, then publish ``run/out``.

    Continues bit-exactly from the newest checkpoint under ``run``; does nothing when ``run/out`` exists. Every rank
    runs the same steps and gets the same metrics; the main one alone writes them.
    """
    out, checkpoints, main = run / "out", run / "checkpoints", optimizer.ranks.main
    if out.exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    done = load_state(checkpoints, optimizer)
    about = config.model_dump(mode="json")
    record = None
    if main:
        record = RunRecorder(
            run, done, steps=steps, execution=execution, device=model.device, progress=progress, about=about
        )
    with record or nullcontext():
        for index in range(done, steps):
            watch = Stopwatch()
            with watch.part("step"):
                result = step(index, watch)
            if record:
                record.measured(index + 1, result.metrics)
            if (index + 1) % execution.checkpoint_every == 0 and index + 1 < steps:
                with watch.part("checkpoint"):
                    save_state(checkpoints, optimizer, index + 1)
            if record:
                record.finished(index + 1, watch, result.tokens)
    with optimizer.whole():
        if main:
            save_checkpoint(model, out)
            remove_states(checkpoints)
        optimizer.ranks.barrier()
