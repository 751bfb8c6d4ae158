"""Work that nobody waits for, in a thread of its own: an engine goes on while what it answered is being scored."""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST = 256


class Beside(Generic[T]):
    """Calls ``work`` on every item that is put, one after the other in their order.

    Leaving it as a context waits until all is done, whatever it is left for. What ``work`` raises comes out of the
    next ``put``, or at the end in place of any other error but the user's interrupt; then the rest is dropped.
    """

    def __init__(self, work: Callable[[T], None]) -> None:
        self._work = work
        self._items: Queue[T | None] = Queue(_MOST)
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="beside", daemon=True)

    def __enter__(self) -> "Beside[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._items.put(None)
        self._thread.join()
        failure = self._failure
        if failure is not None and failure is not error and not isinstance(error, KeyboardInterrupt):
            raise failure from error

    def put(self, item: T) -> None:
        """For any thread; waits where very much is to be done."""
        if self._failure is not None:
            raise self._failure
        self._items.put(item)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if self._failure is None:
                try:
                    self._work(item)
                except BaseException as error:
                    self._failure = error
