"""Symbolic equality of expressions by math-verify, in a separate process that can be killed.

Changes of what is compared here need a new ``vold.answers.VERSION``.
"""

import json
import os
import re
import selectors
import subprocess
import sys
import threading
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path

from vold.answers import arithmetic, values
from vold.answers.values import Value

WALL_SECONDS = 600.0
"""Last resort. The worker limits its own CPU time, but an overloaded machine may be slow."""

_LONGEST = 300
_FAR = Fraction(1, 10**3)
_MATHS = re.compile(r"\d|\\(?:pi|sqrt|frac|infty|sin|cos|tan|log|ln)|^[-+]?[A-Za-z]$")
# Sequences and ratios are not compared here; relations, towers of powers, integrals and sums are refused.
_COSTLY = (
    r"[<>&#@\"]|\\(?:le|ge|begin|input|text|int|sum|prod|lim)(?![a-z])|\^[^\^]{0,8}\^"
    r"|\d{40}|!!|\d{4,}!|\^\s*\{?-?\d{5}|\d[eE][+-]?\d{4}"
)
_REFUSED = re.compile(rf"[,:;=]|{_COSTLY}")
_REFUSED_NUMBER = re.compile(rf"[;=]|{_COSTLY}")


def equal(answer: Value, reference: Value) -> tuple[bool, str]:
    """Whether the two are equal, and the name of the rule that decided.

    Sequences compare part by part. Expressions that math-verify cannot decide count as different.
    """
    if reference.kind == "sequence":
        pairs = values.paired(answer, reference)
        return all(values.equal(left, right) or equal(left, right)[0] for left, right in pairs), "symbolic"
    if any(
        not _MATHS.search(side.text) or _REFUSED.search(side.text) or len(side.text) > _LONGEST
        for side in (answer, reference)
    ):
        return answer.text.casefold() == reference.text.casefold(), "text"
    if _far_apart(answer.text, reference.text):
        return False, "numeric"
    same = _ask(answer.text, reference.text)
    return bool(same), "symbolic" if same is not None else "symbolic-limit"


def _far_apart(answer: str, reference: str) -> bool:
    """Whether both are numbers whose first 40 digits show that they are different.

    This spares the worker nearly every question whose answer would be no.
    """
    left, right = arithmetic.approximation(answer), arithmetic.approximation(reference)
    return left is not None and right is not None and abs(left - right) > _FAR * max(1, abs(right))


@lru_cache(maxsize=1 << 14)
def number(text: str) -> float | None:
    """The value of a LaTeX expression without free symbols. None if it has no value or is too costly to compute."""
    if not _MATHS.search(text) or _REFUSED_NUMBER.search(text) or len(text) > _LONGEST:
        return None
    value = _worker(os.getpid()).ask(text)
    return None if value is None or isinstance(value, bool) else value


@lru_cache(maxsize=1 << 14)
def _ask(answer: str, reference: str) -> bool | None:
    same = _worker(os.getpid()).ask(answer, reference)
    return None if same is None else same is True


@cache
def _worker(pid: int) -> "_Worker":
    """The worker of a process. Each process has its own, as a fork must not share its parent's pipes."""
    return _Worker()


class _Worker:
    """Runs ``vold.answers.worker``: started at the first question, and again after a question that takes too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *texts: str) -> bool | float | None:
        """Whether two texts are equal, or the value of one text.

        None if there is no value or if the worker ran out of time or memory.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._stop()
            process = self._process or self._start()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(texts).encode() + b"\n")
                process.stdin.flush()
                return self._read(process, WALL_SECONDS)
            except (OSError, TimeoutError):
                self._stop()
                return None

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-m", "vold.answers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        self._process = process
        try:
            self._read(process, WALL_SECONDS)
        except (OSError, TimeoutError) as error:
            self._stop()
            raise RuntimeError(
                "the process for symbolic comparison did not start; check that math-verify is installed"
            ) from error
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    @staticmethod
    def _read(process: subprocess.Popen[bytes], seconds: float) -> bool | float | None:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise BrokenPipeError
        return json.loads(line)
