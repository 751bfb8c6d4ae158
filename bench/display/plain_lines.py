"""Plain progress lines on a console: the base of every view of long work."""

import time
from typing import TYPE_CHECKING

from bench.terminal import clock, printable

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 30.0


class PlainLines:
    """Prints lines that stay, and says when the next progress line is due."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.started_at = self._line_at = time.monotonic()

    def line_is_due(self) -> bool:
        """Whether half a minute has passed since the last time this was true."""
        due = time.monotonic() - self._line_at >= _SECONDS_BETWEEN_LINES
        if due:
            self._line_at = time.monotonic()
        return due

    def say(self, text: str) -> None:
        """Print one line after the time since the start."""
        stamp = clock(time.monotonic() - self.started_at)
        self.print_line(f"{stamp:>8}  {printable(text)}")

    def print_line(self, text: str) -> None:
        """Print one line without markup or wrapping."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
