"""The view of a running training stage: live on a terminal, plain lines in a log."""

import json
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from bench.display.plain_lines import PlainLines
from bench.terminal import clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_RECENT = 10
_WIDTH = 26
_BARS = "▁▂▃▄▅▆▇█"
_STAGES = ("sync", "rollout", "reward", "validation", "teacher", "gradient_norms", "train", "checkpoint")


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the view. It shows the first of ``metrics`` that was measured."""

    label: str
    unit: str
    metrics: tuple[str, ...]

    @property
    def heading(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label


_LINES = (
    _Line("reward", "", ("reward_mean",)),
    _Line("correct share", "", ("correct",)),
    _Line("KL", "nats/token", ("kl_exact", "kl_sampled")),
    _Line("entropy", "nats/token", ("entropy",)),
    _Line("length", "tokens", ("completion_tokens",)),
    _Line("truncated share", "", ("truncated_share",)),
    _Line("loss", "", ("loss",)),
    _Line("gradient norm", "", ("gradient_norm",)),
)


def alarms(metrics: Mapping[str, float]) -> list[str]:
    """The short names of the warnings in a step's metrics."""
    raised = [name for name, value in metrics.items() if value and (name == "skipped" or name.startswith("warn_"))]
    return [name.removeprefix("warn_") for name in raised]


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """``values`` as a line of at most ``width`` bars, each the mean of an equal share of them.

    The bars span the range of the means, but at least 2 % of the largest: smaller changes are not shown as a trend.
    """
    cells = min(width, len(values))
    edges = [index * len(values) // cells for index in range(cells + 1)] if cells else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = max(high - low, 0.02 * max(abs(low), abs(high))) or 1.0
    return "".join(_BARS[min(int((mean - low) / span * len(_BARS)), len(_BARS) - 1)] for mean in means)


class TrainingView(PlainLines):
    """Plain lines: the first step, the last, one every half minute, and every warning immediately.

    It is the ``Progress`` of a training loop; use it as a context. run: directory of the run, whose earlier steps are
    part of the trends.
    """

    def __init__(self, console: "Console", kind: str, run: Path) -> None:
        super().__init__(console)
        self.kind, self.run = kind, run
        self.done, self.total = 0, 0
        self.history: dict[str, dict[int, float]] = {}
        self.unit = "trace" if kind == "traces" else "step"
        self.opening = f"{kind} {run.name}: loading models and data, then the first {self.unit}"
        self.step_began = self.started_at
        self._first: tuple[float, int] | None = None
        self._line_at = -math.inf  # a line on the first step is due at once
        self._handler = _Handler(self)
        self._lock = threading.Lock()  # another thread draws the live view

    def __call__(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        with self._lock:
            if not self.done and done > 1:
                self._remember(done)
            self.done, self.total, self.step_began = done, total, time.monotonic()
            self._first = self._first or (self.step_began, done)
            self._add(done, metrics)
        self.stepped()

    def opened(self) -> None:
        """Called at the start, before anything is measured."""
        self.say(self.opening)

    def stepped(self) -> None:
        """Called at the end of each step."""
        if self.line_is_due() or self.done == self.total:
            parts = [f"{self.unit} {self.done}/{self.total}"]
            parts += [f"{line.label} {value:.3g}" for line in _LINES if (value := self._latest(line)) is not None]
            parts += [f"{self.seconds_per_step():.2g} s per {self.unit}", f"{clock(self.seconds_left())} left"]
            self.say("  ".join(parts + [f"! {name}" for name in self.alarms()]))

    def course(self, line: _Line) -> list[float]:
        """All values of a line, in the order of the steps."""
        name = next((name for name in line.metrics if name in self.history), None)
        return [value for _, value in sorted(self.history[name].items())] if name else []

    def recent(self, name: str) -> float | None:
        """The mean of a metric over the last steps that have it; None if no step has."""
        values = [value for _, value in sorted(self.history.get(name, {}).items())][-_RECENT:]
        return sum(values) / len(values) if values else None

    def seconds(self, stage: str) -> float:
        """Mean seconds of ``stage`` per step over the last steps; a step without it counts as 0."""
        steps = sorted(self.history.get("step_seconds", {}))[-_RECENT:]
        spent = self.history.get(f"{stage}_seconds", {})
        return sum(spent.get(step, 0.0) for step in steps) / len(steps) if steps else 0.0

    def seconds_per_step(self) -> float:
        """Mean seconds per step, with a share of the checkpoints.

        A stage without timing uses the wall time since its first report.
        """
        if "step_seconds" not in self.history and self._first and self.done > self._first[1]:
            return (self.step_began - self._first[0]) / (self.done - self._first[1])
        return self.seconds("step") + self.seconds("checkpoint")

    def seconds_left(self) -> float:
        """Seconds to the end at the present rate, without what the current step has taken already."""
        ahead = (self.total - self.done) * self.seconds_per_step()
        return max(0.0, ahead - (time.monotonic() - self.step_began))

    def alarms(self) -> list[str]:
        """Warnings of the last step: ``entropy``, ``kl``, ..., and ``skipped``."""
        return alarms({name: values[self.done] for name, values in self.history.items() if self.done in values})

    def __enter__(self) -> "TrainingView":
        logging.getLogger("vold").addHandler(self._handler)
        self.opened()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        logging.getLogger("vold").removeHandler(self._handler)

    def _latest(self, line: _Line) -> float | None:
        values = self.course(line)
        return values[-1] if values else None

    def _add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.history.setdefault(name, {})[step] = value

    def _remember(self, before: int) -> None:
        """Read the earlier steps of a resumed run."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            with suppress(OSError, ValueError), (self.run / name).open(encoding="utf-8") as file:
                for row in map(json.loads, file):
                    if row["step"] < before:
                        self._add(row["step"], row)


class LiveTrainingView(TrainingView):
    """The same as a view that is redrawn twice per second and stays when the run ends; warnings scroll above it."""

    def __init__(self, console: "Console", kind: str, run: Path) -> None:
        from rich.live import Live

        super().__init__(console, kind, run)
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=2, vertical_overflow="visible"
        )

    def opened(self) -> None:
        self._live.start()

    def stepped(self) -> None: ...

    def render(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        if not self.total:
            return Text(self.opening, style="dim")
        with self._lock:
            parts: list[RenderableType] = [self._head(), "", self._trends()]
            if "step_seconds" in self.history:
                parts += ["", self._stages()]
            if warnings := self.alarms():
                parts.append(Text(f"warnings in step {self.done}: {', '.join(warnings)}", style="bold yellow"))
        return Group(*parts)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()
        super().__exit__(kind, error, at)

    def _head(self) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        left = f"{clock(time.monotonic() - self.started_at)} gone, {clock(self.seconds_left())} left"
        name = Text(f"{self.kind} {self.run.name}", style="bold", no_wrap=True, overflow="ellipsis")
        table.add_row(name, f"{self.unit} {self.done}/{self.total}", f"{self.seconds_per_step():.3g} s/{self.unit}")
        table.add_row(ProgressBar(total=self.total, completed=self.done, width=_WIDTH), left)
        return table

    def _trends(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("")
        for name in ("first", "lowest", "highest", "now"):
            table.add_column(name, justify="right")
        table.add_column(f"over {self.done} {self.unit}s", no_wrap=True)
        for line in _LINES:
            if values := self.course(line):
                numbers = (values[0], min(values), max(values), values[-1])
                table.add_row(line.heading, *(f"{value:.3g}" for value in numbers), sparkline(values))
        return table

    def _stages(self) -> "Table":
        """The seconds per step of each stage, as means over the last steps."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (f"last {_RECENT} steps", "s/step", "tokens/s", "share of the time"):
            table.add_column(name, justify="right" if "/" in name else "left", no_wrap=True)
        total = self.seconds_per_step()
        for stage in _STAGES:
            if f"{stage}_seconds" in self.history and total > 0:
                seconds, rate = self.seconds(stage), self.recent(f"{stage}_tokens_per_second")
                cells = "█" * round(min(seconds / total, 1.0) * _WIDTH)
                table.add_row(stage.replace("_", " "), f"{seconds:.3g}", f"{rate:,.0f}" if rate else "", cells)
        if memory := self.recent("peak_memory_bytes"):
            table.add_row("peak memory", f"{memory / 2**30:.2f}", "GiB")
        return table


class _Handler(logging.Handler):
    """Prints warnings of the trainer as lines of the view."""

    def __init__(self, view: TrainingView) -> None:
        super().__init__(logging.WARNING)
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        self.view.say(f"{record.levelname.lower()}: {record.getMessage()}")


def training_view(console: "Console", kind: str, run: Path) -> TrainingView:
    """The live view on a terminal, plain lines elsewhere."""
    return (LiveTrainingView if console.is_terminal else TrainingView)(console, kind, run)
