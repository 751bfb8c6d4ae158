"""The callback through which a long loop reports its progress."""

from collections.abc import Callable

Progress = Callable[[int, int, dict[str, float]], None]
"""(done, total, metrics). The metrics of a training step are those in metrics.jsonl and timing.jsonl."""


def silent(done: int, total: int, metrics: dict[str, float]) -> None:
    """A progress callback that ignores its arguments."""
