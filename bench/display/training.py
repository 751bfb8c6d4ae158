"""What ``vold-bench train`` and ``traces`` show: a view that lives in the terminal, plain lines elsewhere."""

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

from bench.terminal import clock, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_LINE_EVERY = 30.0
_RECENT = 10
_WIDTH = 26
_BARS = "▁▂▃▄▅▆▇█"
_STAGES = ("sync", "rollout", "reward", "validation", "teacher", "train", "checkpoint")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the view: the first of ``metrics`` that was ever measured."""

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
    _Line("gradient norm", "", ("grad_norm",)),
)


def alarms(metrics: Mapping[str, float]) -> list[str]:
    """What a step's metrics warn of, by its short name."""
    raised = [name for name, value in metrics.items() if value and (name == "skipped" or name.startswith("warn_"))]
    return [name.removeprefix("warn_") for name in raised]


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """The course of ``values`` in at most ``width`` characters, each the mean of its share of them.

    The bars span the means from low to high, but at least a fiftieth of the highest: a hair's breadth is no trend.
    """
    cells = min(width, len(values))
    edges = [place * len(values) // cells for place in range(cells + 1)] if cells else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = max(high - low, 0.02 * max(abs(low), abs(high))) or 1.0
    return "".join(_BARS[min(int((mean - low) / span * len(_BARS)), len(_BARS) - 1)] for mean in means)


class TrainingView:
    """Plain lines: the first step, the last, one every half minute, and every warning at once.

    It is the ``Progress`` of a training loop. ``run`` is the run's directory: what it already holds is part of the
    trends. Use it as a context.
    """

    def __init__(self, console: "Console", kind: str, run: Path) -> None:
        self.console, self.kind, self.run = console, kind, run
        self.done, self.total = 0, 0
        self.history: dict[str, dict[int, float]] = {}
        self.unit = "trace" if kind == "traces" else "step"
        self.opening = f"{kind} {run.name}: loading models and data, then the first {self.unit}"
        self.began = self.step_began = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._line_at = -math.inf
        self._handler = _Handler(self)
        self._lock = threading.Lock()  # the live view is drawn by a thread of its own

    def __call__(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        with self._lock:
            if not self.done and done > 1:
                self._remember(done)
            self.done, self.total, self.step_began = done, total, time.monotonic()
            self._first = self._first or (self.step_began, done)
            self._add(done, metrics)
        self.stepped()

    def opened(self) -> None:
        """Nothing is measured yet."""
        self.say(self.opening)

    def stepped(self) -> None:
        """A step ended."""
        now = time.monotonic()
        if now - self._line_at >= _LINE_EVERY or self.done == self.total:
            self._line_at = now
            parts = [f"{self.unit} {self.done}/{self.total}"]
            parts += [f"{line.label} {value:.3g}" for line in _LINES if (value := self._latest(line)) is not None]
            parts += [f"{self.seconds_a_step():.2g} s a {self.unit}", f"{clock(self.seconds_left())} left"]
            self.say("  ".join(parts + [f"! {name}" for name in self.alarms()]))

    def say(self, text: str) -> None:
        """One line that stays."""
        stamp = clock(time.monotonic() - self.began)
        self.console.print(f"{stamp:>8}  {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def course(self, line: _Line) -> list[float]:
        """All values of a line, in the order of the steps."""
        name = next((name for name in line.metrics if name in self.history), None)
        return [value for _, value in sorted(self.history[name].items())] if name else []

    def recent(self, name: str) -> float | None:
        """The mean of a metric over the last steps that have it; None when it has none."""
        values = [value for _, value in sorted(self.history.get(name, {}).items())][-_RECENT:]
        return sum(values) / len(values) if values else None

    def seconds(self, stage: str) -> float:
        """Seconds of ``stage`` a step, over the last steps; a step without it counts as 0."""
        steps = sorted(self.history.get("step_seconds", {}))[-_RECENT:]
        spent = self.history.get(f"{stage}_seconds", {})
        return sum(spent.get(step, 0.0) for step in steps) / len(steps) if steps else 0.0

    def seconds_a_step(self) -> float:
        """Checkpoints included, as often as they come; what is not timed goes by the clock since the first report."""
        if "step_seconds" not in self.history and self._first and self.done > self._first[1]:
            return (self.step_began - self._first[0]) / (self.done - self._first[1])
        return self.seconds("step") + self.seconds("checkpoint")

    def seconds_left(self) -> float:
        """Seconds to the end at the present rate, less what the step at work has taken."""
        ahead = (self.total - self.done) * self.seconds_a_step()
        return max(0.0, ahead - (time.monotonic() - self.step_began))

    def alarms(self) -> list[str]:
        """What the last step warns of: ``entropy``, ``kl``, ..., and ``skipped``."""
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
        """Take over the steps that a resumed run has behind it."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            with suppress(OSError, ValueError), (self.run / name).open(encoding="utf-8") as file:
                for row in map(json.loads, file):
                    if row["step"] < before:
                        self._add(row["step"], row)


class LiveTrainingView(TrainingView):
    """The same as a view that is drawn anew twice a second and stands when the run ends; warnings scroll above it."""

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
        left = f"{clock(time.monotonic() - self.began)} gone, {clock(self.seconds_left())} left"
        name = Text(f"{self.kind} {self.run.name}", style="bold", no_wrap=True, overflow="ellipsis")
        table.add_row(name, f"{self.unit} {self.done}/{self.total}", f"{self.seconds_a_step():.3g} s/{self.unit}")
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
        """Where a step's time goes, as means over the last steps."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (f"last {_RECENT} steps", "s/step", "tokens/s", "share of the time"):
            table.add_column(name, justify="right" if "/" in name else "left", no_wrap=True)
        whole = self.seconds_a_step()
        for stage in _STAGES:
            if f"{stage}_seconds" in self.history and whole > 0:
                seconds, rate = self.seconds(stage), self.recent(f"{stage}_tokens_per_second")
                cells = "█" * round(min(seconds / whole, 1.0) * _WIDTH)
                table.add_row(stage, f"{seconds:.3g}", f"{rate:,.0f}" if rate else "", cells)
        if memory := self.recent("peak_memory_bytes"):
            table.add_row("peak memory", f"{memory / 2**30:.2f}", "GiB")
        return table


class _Handler(logging.Handler):
    """Warnings of the trainer become lines of the view."""

    def __init__(self, view: TrainingView) -> None:
        super().__init__(logging.WARNING)
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        self.view.say(f"{record.levelname.lower()}: {record.getMessage()}")


def training_view(console: "Console", kind: str, run: Path) -> TrainingView:
    """The live view on a terminal, else the plain one."""
    return (LiveTrainingView if console.is_terminal else TrainingView)(console, kind, run)
