"""How a long loop tells where it stands."""

from collections.abc import Callable

Progress = Callable[[int, int, dict[str, float]], None]
"""(done, total, metrics): of a training step, what metrics.jsonl and timing.jsonl have of it."""


def silent(done: int, total: int, metrics: dict[str, float]) -> None:
    """Says nothing."""
