"""The view of a running evaluation: live on a terminal, plain lines in a log."""

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from bench.display.plain_lines import PlainLines
from bench.terminal import clock

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WINDOW_SECONDS = 60.0


class EvaluationView(PlainLines):
    """The ``Progress`` of an evaluation: rates over the last minute, accuracy so far, faults and time left.

    Use it as a context. The interval is Wilson's on the number of problems behind the responses so far. The problems
    that come first may differ from the rest.
    """

    def __init__(self, console: "Console", label: str, samples: int) -> None:
        super().__init__(console)
        self.label, self.samples = label, samples
        self.done, self.total, self.metrics = 0, 0, dict[str, float]()
        self._points: deque[tuple[float, int, float]] = deque()

    def __call__(self, done: int, total: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        self.before_update()
        self.done, self.total, self.metrics = done, total, metrics
        self._mark(now)
        if done == total:
            self.ended()

    def _mark(self, now: float) -> None:
        """Keep one point per second, because responses come in bursts."""
        point = self.done, self.metrics.get("tokens", 0.0)
        if self._points and now - self._points[-1][0] < 1:
            self._points[-1] = (self._points[-1][0], *point)
            return
        self._points.append((now, *point))
        while len(self._points) > 2 and now - self._points[1][0] > _WINDOW_SECONDS:
            self._points.popleft()

    def before_update(self) -> None:
        """Print a line on the responses so far, if one is due."""
        if self.line_is_due():
            self._print()

    def ended(self) -> None:
        self._print()

    def _print(self) -> None:
        self.print_line(f"{self.label}  {self.text()}")

    def text(self) -> str:
        """Counts, rates, accuracy and faults in one line."""
        return "  ".join(filter(None, [self._count(), self._pace(), self._quality()]))

    def _count(self) -> str:
        """Responses so far of all responses; a problem has one response per sample."""
        return f"{self.done}/{self.total}" + (" responses" if self.samples > 1 else "")

    def _pace(self) -> str:
        items, tokens = self.rates()
        if not items:
            return ""
        left = clock((self.total - self.done) / self.samples / items)
        time_text = f"{left} left" if self.done < self.total else f"{clock(time.monotonic() - self.started_at)} in all"
        return f"{items:.3g} items/s  {tokens:,.0f} tokens/s  {time_text}"

    def rates(self) -> tuple[float, float]:
        """Problems and completion tokens per second over the last minute; zeros while unknown.

        The first point is from the start. It is used only while there is no other, because the time before the first
        response includes loading.
        """
        if len(self._points) < 2:
            return 0.0, 0.0
        since, done, tokens = self._points[1 if len(self._points) > 2 else 0]
        seconds = max(self._points[-1][0] - since, 1e-6)
        return (self.done - done) / self.samples / seconds, (self.metrics.get("tokens", 0.0) - tokens) / seconds

    def _quality(self) -> str:
        scored = self.metrics.get("scored", 0.0)
        if not self.done or not scored:
            return ""
        from statsmodels.stats.proportion import proportion_confint

        share = self.metrics["right"] / scored
        items = scored / self.samples
        low, high = proportion_confint(share * items, items, method="wilson")
        rates = [f"{name} {100 * self.metrics[name] / self.done:.1f} %" for name in ("unparsed", "truncated", "error")]
        return "  ".join([f"{100 * share:.1f} % right [{100 * low:.1f}, {100 * high:.1f}]", *rates])

    def __enter__(self) -> "EvaluationView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveEvaluationView(EvaluationView):
    """The same view at the bottom of the terminal, redrawn twice per second."""

    def __init__(self, console: "Console", label: str, samples: int) -> None:
        from rich.live import Live

        super().__init__(console, label, samples)
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2, transient=True)

    def before_update(self) -> None:
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
