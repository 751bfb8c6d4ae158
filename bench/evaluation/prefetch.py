"""Turns are prepared ahead of the engine by worker processes, up to a number and an amount of memory."""

import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from multiprocessing import get_context
from threading import Lock
from typing import Any

from bench.engines import Preparer
from bench.engines.factory import IN_PROCESS, gpu_present
from bench.errors import ConfigurationError, InfrastructureError
from bench.prompts import PromptPart
from vold.execution import Execution
from vold.processes import end_with_parent


@dataclass(frozen=True, slots=True)
class Prefetch:
    """How turns are prepared. workers: 0 means in this process, when the engine draws them.

    problems, bytes: the most that may be in preparation, or prepared and not yet taken by the engine.
    """

    workers: int
    problems: int
    bytes: int


def prefetch(engine: str, execution: Execution) -> Prefetch:
    """How turns are prepared for an engine.

    If the settings name no number of workers, an engine in this process on CPUs has none, and any other engine 1 to 4.
    """
    settings, cpus = execution.evaluation, len(os.sched_getaffinity(0))
    workers = settings.workers
    if workers is None:
        on_gpu = execution.device.startswith("cuda") or (execution.device == "auto" and gpu_present())
        workers = 0 if engine in IN_PROCESS and not on_gpu else max(1, min(4, cpus // 2))
    return Prefetch(workers, settings.ahead_problems, settings.ahead_mib << 20)


class Preparation:
    """Prepares turns with ``preparer``; its workers run while it is entered.

    A worker needs seconds to import its modules. Until the first worker is ready, this process prepares the turns, so
    that the engine does not wait.
    """

    def __init__(self, preparer: Preparer, prefetch: Prefetch) -> None:
        self.preparer, self.prefetch = preparer, prefetch
        self.ready: Future[None] | None = None
        """Done when the first worker is ready; None without workers."""
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Preparation":
        if self.prefetch.workers:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.prefetch.workers, context, _start_worker, (self.preparer,))
            with _without_interrupts():
                self.ready = self._pool.submit(_do_nothing)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None and self.ready is not None:
            self._pool.shutdown(wait=self.ready.done(), cancel_futures=True)

    def prepared(self, turns: Iterable[Sequence[PromptPart]]) -> Iterator[Any]:
        """The prepared turns, in order; a ValueError object for a turn that can never be prepared.

        Raises InfrastructureError if a worker was killed.
        """
        remaining = iter(turns)
        while (self.ready is None or not self.ready.done()) and (turn := next(remaining, None)) is not None:
            yield _attempt(self.preparer, turn)
        if self._pool is None:
            return
        try:
            yield from _in_order(self._pool, remaining, _Room(self.prefetch))
        except BrokenProcessPool as error:
            raise InfrastructureError(
                "a process that prepares prompts was killed (the kernel does this when memory runs out); run again to "
                "continue, with fewer execution.evaluation.workers if it happens again"
            ) from error


def _in_order(pool: ProcessPoolExecutor, turns: Iterator[Sequence[PromptPart]], room: "_Room") -> Iterator[object]:
    pending: deque[Future[tuple[object, int]]] = deque()
    while True:
        while room.free(len(pending)) and (turn := next(turns, None)) is not None:
            with _without_interrupts():
                future = pool.submit(_attempt_here, turn)
            future.add_done_callback(room.arrived)
            pending.append(future)
        if not pending:
            return
        value, size = pending.popleft().result()
        room.left(size)
        yield value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started in this context ignore Ctrl-C, even during their imports.

    Ctrl-C reaches every process of a terminal. Only this process handles it, after the context, and ends its workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Room:
    """Counts the bytes of prepared turns; turns in preparation are assumed to be as large as the largest so far."""

    def __init__(self, prefetch: Prefetch) -> None:
        self.prefetch = prefetch
        self._lock = Lock()
        self._waiting, self._bytes, self._largest = 0, 0, 0

    def free(self, pending: int) -> bool:
        """Whether another turn may be prepared. If none is pending, it always may."""
        with self._lock:
            expected = self._bytes + (pending - self._waiting + 1) * self._largest
        return pending == 0 or (pending < self.prefetch.problems and expected <= self.prefetch.bytes)

    def arrived(self, future: "Future[tuple[object, int]]") -> None:
        if not future.cancelled() and future.exception() is None:
            size = future.result()[1]
            with self._lock:
                self._waiting += 1
                self._bytes += size
                self._largest = max(self._largest, size)

    def left(self, size: int) -> None:
        with self._lock:
            self._waiting -= 1
            self._bytes -= size


def _attempt(preparer: Preparer, turn: Sequence[PromptPart]) -> object:
    try:
        return preparer(turn)
    except ConfigurationError:  # concerns the run, not this turn
        raise
    except ValueError as error:
        return ValueError(str(error))


_preparer: Preparer  # in a worker process


def _start_worker(preparer: Preparer) -> None:
    global _preparer
    _preparer = preparer
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    end_with_parent(group=False)  # a worker whose parent was killed would wait for work for ever


def _do_nothing() -> None: ...


def _attempt_here(turn: Sequence[PromptPart]) -> tuple[object, int]:
    value = _attempt(_preparer, turn)
    return value, _size(value)


def _size(value: object) -> int:
    """Bytes of the arrays and texts in a prepared turn."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return 8 * len(value) if value and isinstance(value[0], int) else sum(map(_size, value))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_size(getattr(value, field.name)) for field in fields(value))
    return int(getattr(value, "nbytes", 0))
