"""The view of a running matrix: live on a terminal, plain lines in a log."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.display.plain_lines import PlainLines
from bench.display.training import alarms
from bench.store import StageOutcome
from bench.terminal import clock

if TYPE_CHECKING:
    from rich.console import Console

# The metrics of a stage that are shown, in this order.
_SHOWN = ("accuracy", "reward_mean", "kl_sampled", "completion_tokens", "loss")


class _Task:
    """A running stage."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first: tuple[float, int] | None = None
        self.done, self.total = 0, 0
        self.metrics: Mapping[str, float] = {}

    def update(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self.done, self.total, self.metrics = done, total, metrics
        # A resumed stage starts in the middle, so the rate counts from its first report in this process.
        self.first = self.first or (time.monotonic(), done)

    @property
    def rate(self) -> float:
        """Units per second; 0 while unknown."""
        if self.first is None or self.done <= self.first[1]:
            return 0.0
        return (self.done - self.first[1]) / max(time.monotonic() - self.first[0], 1e-6)

    def text(self) -> str:
        shown = [f"{name} {self.metrics[name]:.3g}" for name in _SHOWN if name in self.metrics]
        shown += [f"! {name}" for name in alarms(self.metrics)]
        rate = f"{self.rate:.2g}/s, {clock((self.total - self.done) / self.rate)} left" if self.rate else ""
        return "  ".join(filter(None, [f"{self.done}/{self.total}" if self.total else "starting", rate, *shown]))


class LineMonitor(PlainLines):
    """Plain lines: one when a stage starts or ends, and every half minute one per running stage.

    labels: arms and seeds of each stage to run. seconds: expected seconds of each.
    """

    def __init__(self, console: "Console", labels: Mapping[str, str], seconds: Mapping[str, float], slots: int) -> None:
        super().__init__(console)
        self.labels = labels
        self.expected = {name: max(seconds.get(name, 0.0), 1e-3) for name in labels}
        self.slots = slots
        self.tasks: dict[str, _Task] = {}
        self.ended = 0
        self._spent = self._spent_expected = 0.0

    def started(self, stage: str) -> None:
        self.tasks[stage] = _Task()
        self.say(f"start   {stage}  {self.labels[stage]}")

    def progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        self.tasks[stage].update(done, total, metrics)

    def retried(self, stage: str, outcome: StageOutcome) -> None:
        self.tasks.pop(stage, None)
        self.say(f"retry   {stage}  {outcome.error_class}: {outcome.message}")

    def finished(self, stage: str, outcome: StageOutcome) -> None:
        task = self.tasks.pop(stage, None)
        took = time.monotonic() - task.began if task else 0.0
        if outcome.state == "done":
            self._spent += took
            self._spent_expected += self.expected[stage]
        self.expected.pop(stage)
        self.ended += 1
        detail = f"{outcome.error_class}: {outcome.message}" if outcome.error_class else outcome.message
        self.say(f"{outcome.state:7} {stage}  {clock(took)}  {detail or self.summary()}")

    def tick(self) -> None:
        if self.line_is_due():
            for stage, task in self.tasks.items():
                self.say(f"        {stage}  {task.text()}")
            self.say(f"        {self.summary()}")

    def summary(self) -> str:
        left = self.left()
        return f"{self.ended} of {self.ended + len(self.expected)} stages, {clock(left)} left"

    def left(self) -> float:
        """Expected seconds to the end, scaled by how long the finished stages took compared with their estimates."""
        correction = self._spent / self._spent_expected if self._spent_expected else 1.0
        shares = {name: 1 - task.done / task.total for name, task in self.tasks.items() if task.total}
        rest = [seconds * shares.get(name, 1.0) * correction for name, seconds in self.expected.items()]
        return max(sum(rest) / self.slots, max(rest, default=0.0))

    def __enter__(self) -> "LineMonitor":
        return self

    def __exit__(self, *_: object) -> None: ...


class LiveMonitor(LineMonitor):
    """The same lines with a view of the running stages at the bottom of the terminal."""

    def __init__(self, console: "Console", labels: Mapping[str, str], seconds: Mapping[str, float], slots: int) -> None:
        from rich.live import Live

        super().__init__(console, labels, seconds, slots)
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def tick(self) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for stage, task in self.tasks.items():
            bar = ProgressBar(total=task.total or 1, completed=task.done, width=20)
            table.add_row(stage, bar, Text(task.text()), Text(self.labels[stage], style="dim"))
        self._live.update(Group(table, Text(self.summary(), style="bold")))

    def __enter__(self) -> "LineMonitor":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
