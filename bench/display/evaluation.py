"""What a running ``vold-bench eval`` shows: a live view on a terminal, the same as plain lines in a log."""

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from bench.terminal import clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LINE_EVERY = 30.0
_WINDOW = 60.0


class EvaluationView:
    """The ``Progress`` of an evaluation: rates over the last minute, the accuracy so far, what goes wrong, time left.

    Use it as a context. The interval is Wilson's on the number of problems behind the responses so far: those that
    came first, which need not be like the rest.
    """

    def __init__(self, console: "Console", label: str, samples: int) -> None:
        self.console, self.label, self.samples = console, label, samples
        self.done, self.total, self.metrics = 0, 0, dict[str, float]()
        self._seen: deque[tuple[float, int, float]] = deque()
        self._began = self._line_at = time.monotonic()

    def __call__(self, done: int, total: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        self.before(now)
        self.done, self.total, self.metrics = done, total, metrics
        self._mark(now)
        if done == total:
            self.ended()

    def _mark(self, now: float) -> None:
        """A point a second, with all that came within it: answers come in bursts."""
        point = self.done, self.metrics.get("tokens", 0.0)
        if self._seen and now - self._seen[-1][0] < 1:
            self._seen[-1] = (self._seen[-1][0], *point)
            return
        self._seen.append((now, *point))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW:
            self._seen.popleft()

    def before(self, now: float) -> None:
        """Another response has come: time for a line on those before it?"""
        if now - self._line_at >= _LINE_EVERY:
            self._line_at = now
            self._say()

    def ended(self) -> None:
        self._say()

    def _say(self) -> None:
        self.console.print(f"{self.label}  {self.text()}", markup=False, highlight=False, soft_wrap=True)

    def text(self) -> str:
        """Everything that is known in one line."""
        return "  ".join(filter(None, [self._count(), self._pace(), self._quality()]))

    def _count(self) -> str:
        """An item has as many responses as there are samples; rates are of items."""
        return f"{self.done}/{self.total}" + (" responses" if self.samples > 1 else "")

    def _pace(self) -> str:
        items, tokens = self.rates()
        if not items:
            return ""
        left = clock((self.total - self.done) / self.samples / items)
        time_told = f"{left} left" if self.done < self.total else f"{clock(time.monotonic() - self._began)} in all"
        return f"{items:.3g} items/s  {tokens:,.0f} tokens/s  {time_told}"

    def rates(self) -> tuple[float, float]:
        """Problems and completion tokens a second over the last minute; zeros while unknown.

        The first point is that of the start: it counts only while there is no other, as loading is not answering.
        """
        if len(self._seen) < 2:
            return 0.0, 0.0
        since, done, tokens = self._seen[1 if len(self._seen) > 2 else 0]
        seconds = max(self._seen[-1][0] - since, 1e-6)
        return (self.done - done) / self.samples / seconds, (self.metrics.get("tokens", 0.0) - tokens) / seconds

    def _quality(self) -> str:
        if not self.done or "right" not in self.metrics:
            return ""
        from statsmodels.stats.proportion import proportion_confint

        share = self.metrics["right"] / self.done
        items = self.done / self.samples
        low, high = proportion_confint(share * items, items, method="wilson")
        rates = [f"{name} {100 * self.metrics[name] / self.done:.1f} %" for name in ("unparsed", "truncated", "error")]
        return "  ".join([f"{100 * share:.1f} % right [{100 * low:.1f}, {100 * high:.1f}]", *rates])

    def __enter__(self) -> "EvaluationView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveEvaluationView(EvaluationView):
    """The same at the bottom of the terminal, redrawn twice a second."""

    def __init__(self, console: "Console", label: str, samples: int) -> None:
        from rich.live import Live

        super().__init__(console, label, samples)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

    def before(self, now: float) -> None:
        """The live view draws itself."""

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self.total or 1, completed=self.done, width=24)
        head.add_row(Text(self.label, style="bold"), bar, Text(self._count() if self.total else "starting"))
        return Group(head, *(Text(line) for line in (self._pace(), self._quality()) if line))

    def __enter__(self) -> "EvaluationView":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def evaluation_view(console: "Console", label: str, samples: int) -> EvaluationView:
    """The live view on a terminal, plain lines elsewhere."""
    return (LiveEvaluationView if console.is_terminal else EvaluationView)(console, label, samples)
