"""A watchdog ends the process if its engine hangs, because no thread can interrupt a call that never returns."""

import os
import sys
from threading import Event, Thread

from bench.errors import ExitCode
from vold import heartbeat


class Watchdog:
    """While it is entered, ``seconds`` without a decoding step, a reply or a prepared prompt end the process.

    The exit code is that of failed infrastructure. The log has all responses so far, and another run continues.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ended = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> None:
        heartbeat.beat()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            if heartbeat.seconds_since() > self.seconds:
                sys.stderr.write(
                    f"the engine has made no progress for {self.seconds:g} s (execution.evaluation.hang_seconds) and "
                    "is considered hung; every response so far is saved: run again to continue\n"
                )
                sys.stderr.flush()
                os._exit(ExitCode.INFRASTRUCTURE)
