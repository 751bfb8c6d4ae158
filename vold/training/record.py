"""The record of a training run: metrics with alarms, times, telemetry and progress of every step."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch

from vold.execution import Execution
from vold.training.health import Health
from vold.training.journal import Journal, Stopwatch, peak_memory
from vold.training.metrics import Metrics
from vold.training.progress import Progress
from vold.training.telemetry import Telemetry


class RunRecorder:
    """Writes ``run/metrics.jsonl`` and ``run/timing.jsonl`` and passes each step on to telemetry and progress.

    A context manager, which closes the telemetry.
    """

    def __init__(
        self,
        run: Path,
        done: int,
        *,
        steps: int,
        execution: Execution,
        device: torch.device,
        progress: Progress,
        settings: Mapping[str, object],
    ) -> None:
        """done: number of steps that an interrupted run has finished. settings: the run's config, for telemetry."""
        self.steps, self.device, self.progress = steps, device, progress
        self.metrics, self.timing = Journal(run / "metrics.jsonl", done), Journal(run / "timing.jsonl", done)
        self.health = Health(execution.health, self.metrics.earlier)
        self.telemetry = Telemetry(run, execution, settings)
        self._row: Metrics = {}

    def write_metrics(self, step: int, metrics: Metrics) -> None:
        """Write the deterministic values of ``step`` and its alarms. Call it before the training state is saved."""
        row: Metrics = {"step": step, **metrics}
        self._row = row | self.health.check(row)
        self.metrics.write(self._row)

    def finish_step(self, step: int, watch: Stopwatch, tokens: Mapping[str, int]) -> None:
        """Write the times of the step, including its training state, and report it to telemetry and progress."""
        times: Metrics = {**watch.row(step, tokens), "peak_memory_bytes": peak_memory(self.device)}
        self.timing.write(times)
        values = {name: value for name, value in (self._row | times).items() if name != "step"}
        self.telemetry.write(step, values)
        self.progress(step, self.steps, {name: value for name, value in values.items() if value is not None})

    def __enter__(self) -> "RunRecorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.telemetry.close(failed=kind is not None)
