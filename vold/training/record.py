"""What a run tells of each step: its metrics with the alarms, its times, the telemetry and whoever watches."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from vold.config import Execution
from vold.training.health import Health
from vold.training.journal import Journal, Stopwatch, peak_memory
from vold.training.metrics import Metrics
from vold.training.progress import Progress
from vold.training.telemetry import Telemetry


class RunRecorder:
    """``run/metrics.jsonl``, ``run/timing.jsonl`` and their readers, from step ``done`` on; closed by ``with``."""

    def __init__(
        self,
        run: Path,
        done: int,
        *,
        steps: int,
        execution: Execution,
        device: torch.device,
        progress: Progress,
        about: Mapping[str, Any],
    ) -> None:
        self.steps, self.device, self.progress = steps, device, progress
        self.metrics, self.timing = Journal(run / "metrics.jsonl", done), Journal(run / "timing.jsonl", done)
        self.health = Health(execution.health, self.metrics.earlier)
        self.telemetry = Telemetry(run, execution, about)
        self._row: Metrics = {}

    def measured(self, step: int, metrics: Metrics) -> None:
        """Write what is deterministic in ``step``, with the alarms it raises; before its checkpoint."""
        row: Metrics = {"step": step, **metrics}
        self._row = row | self.health.check(row)
        self.metrics.write(self._row)

    def finished(self, step: int, watch: Stopwatch, tokens: Mapping[str, int]) -> None:
        """Write how long the step took, its checkpoint included, and tell telemetry and progress."""
        times: Metrics = {**watch.row(step, tokens), "peak_memory_bytes": peak_memory(self.device)}
        self.timing.write(times)
        told = {name: value for name, value in (self._row | times).items() if name != "step"}
        self.telemetry.write(step, told)
        self.progress(step, self.steps, {name: value for name, value in told.items() if value is not None})

    def __enter__(self) -> "RunRecorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.telemetry.close(failed=kind is not None)
