"""How a long loop tells where it stands."""

from collections.abc import Callable

Progress = Callable[[int, int, dict[str, float]], None]


def silent(done: int, total: int, metrics: dict[str, float]) -> None:
    """Says nothing."""
