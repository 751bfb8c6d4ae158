"""A background worker thread: an engine continues while its replies are scored."""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_QUEUE_SIZE = 256


class BackgroundWorker(Generic[T]):
    """Calls ``work`` on every queued value in another thread, one after the other.

    Leaving the context waits until the queue is empty. An exception of ``work`` is raised by the next ``put``, or when
    the context is left. It replaces any other exception except KeyboardInterrupt, and the rest of the queue is dropped.
    """

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._queue: Queue[T | None] = Queue(_QUEUE_SIZE)
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="background worker", daemon=True)

    def __enter__(self) -> "BackgroundWorker[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._queue.put(None)
        self._thread.join()
        failure = self._failure
        if failure is not None and failure is not error and not isinstance(error, KeyboardInterrupt):
            raise failure from error

    def put(self, value: T) -> None:
        """Queue a value; may be called from any thread, and waits while the queue is full."""
        if self._failure is not None:
            raise self._failure
        self._queue.put(value)

    def _run(self) -> None:
        while (value := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._work(value)
                except BaseException as error:
                    self._failure = error
