"""The time of this process's last step of work, for a watchdog."""

import time

_last = time.monotonic()


def beat() -> None:
    """Record that a step is done: a decoding step, a response, a prepared prompt."""
    global _last
    _last = time.monotonic()


def seconds_since() -> float:
    """Seconds since the last ``beat``, or since the import of this module."""
    return time.monotonic() - _last
