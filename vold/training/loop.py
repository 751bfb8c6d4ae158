"""The part that all training loops share: resume, record each step, save states, publish the checkpoint."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vold.config import Strict
from vold.execution import Execution
from vold.models import LanguageModel, save_checkpoint
from vold.training.journal import Stopwatch
from vold.training.metrics import Metrics
from vold.training.optim import Optimizer
from vold.training.progress import Progress
from vold.training.record import RunRecorder
from vold.training.state import load_state, remove_states, save_state


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one step.

    metrics: deterministic values. tokens: number of tokens in each part that the stopwatch timed.
    """

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
    """Call ``step(index, stopwatch)`` for each remaining index, then write the checkpoint to ``run/out``.

    Resumes bit-exactly from the newest training state in ``run``, and does nothing if ``run/out`` exists. All ranks run
    the same steps and get the same metrics. Only the main rank writes them.
    """
    out, states, main = run / "out", run / "checkpoints", optimizer.ranks.main
    if out.exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    done = load_state(states, optimizer)
    recorder = None
    if main:
        settings = config.model_dump(mode="json")
        recorder = RunRecorder(
            run, done, steps=steps, execution=execution, device=model.device, progress=progress, settings=settings
        )
    with recorder or nullcontext():
        for index in range(done, steps):
            watch = Stopwatch()
            with watch.part("step"):
                result = step(index, watch)
            if recorder:
                recorder.write_metrics(index + 1, result.metrics)
            if (index + 1) % execution.checkpoint_every == 0 and index + 1 < steps:
                with watch.part("checkpoint"):
                    save_state(states, optimizer, index + 1)
            if recorder:
                recorder.finish_step(index + 1, watch, result.tokens)
    with optimizer.whole_weights():
        if main:
            save_checkpoint(model, out)
            remove_states(states)
        optimizer.ranks.barrier()
