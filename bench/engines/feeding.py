"""A background thread that draws work, so that an engine continues while the next item is being prepared."""

from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Feed(Generic[T]):
    """Draws from ``items`` inside a ``with`` block, at most ``ahead`` items in advance. Iterating never waits.

    Iteration yields None if no item is ready, ends after the last item, and raises any error of drawing them.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._items = items
        self._queue: Queue[object] = Queue(ahead)
        self._closed = Event()
        self._thread = Thread(target=self._draw, name="feed", daemon=True)

    def __enter__(self) -> "Feed[T]":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until the thread has finished its current item."""
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T | None]:
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                yield None
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def _draw(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: object) -> bool:
        """Returns False once the block was left."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False
