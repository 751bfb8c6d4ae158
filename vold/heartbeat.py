"""When this process last did a step of what it is for; a watchdog reads it."""

import time

_last = time.monotonic()


def beat() -> None:
    """Something was done: a decoding step, an answer, a prepared prompt."""
    global _last
    _last = time.monotonic()


def seconds_since() -> float:
    """Since the last ``beat``."""
    return time.monotonic() - _last
