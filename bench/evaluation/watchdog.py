"""Ends a process whose engine hangs: no thread can interrupt one that never returns."""

import os
import sys
from threading import Event, Thread

from bench.errors import ExitCode
from vold import heartbeat


class Watchdog:
    """While it is entered, ``seconds`` without a decoding step, an answer or a prepared prompt end the process.

    The exit code is that of failed infrastructure: what was answered is in the log, and running again continues.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left = Event()
        self._thread = Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> None:
        heartbeat.beat()
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._left.wait(min(1.0, self.seconds / 4)):
            if heartbeat.seconds_since() > self.seconds:
                sys.stderr.write(
                    f"the engine has done nothing for {self.seconds:g} s (execution.evaluation.hang_seconds) and is "
                    "taken to hang; every answer so far is kept: run again to continue\n"
                )
                sys.stderr.flush()
                os._exit(ExitCode.INFRASTRUCTURE)
