"""The log of a running evaluation: one JSON line a response, written as it comes, safe against kill -9."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from bench.records import Column, Response, ResponseKey, columns, storable
from vold.files import disk_full_named, sync

_SYNC_EVERY = 1.0
_COLUMNS = columns(Response)
_encoded = json.JSONEncoder(sort_keys=True).encode


class ResponseLog(Mapping[ResponseKey, Response]):
    """The responses in ``path``, by key, and the place where further ones are appended.

    Every whole, readable line whose key is ``wanted`` counts, once. Other lines (cut off, damaged, said twice) are set
    aside beside the log, so that their responses are asked again. Texts stay on the disk: memory holds where they
    stand. A killed process loses no response that ``add`` has taken; a machine without power those of a second.
    """

    def __init__(self, path: Path, wanted: Collection[ResponseKey]) -> None:
        self.path = path
        self._places: dict[ResponseKey, tuple[int, int]] = {}
        with disk_full_named(path):
            self._index(wanted)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._file).st_size
        self._lock, self._closed = Lock(), Event()
        self._unsynced, self._failure = False, None
        self._syncing = Thread(target=self._sync_every_second, name="response log", daemon=True)
        self._syncing.start()

    def __enter__(self) -> "ResponseLog":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Raises what a sync failed with, unless another error is under way."""
        self._closed.set()
        self._syncing.join()
        try:
            with disk_full_named(self.path):
                self._sync()
                if self._failure is not None:
                    raise self._failure
        except OSError:
            if kind is None:
                raise
        finally:
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[ResponseKey]:
        return iter(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getitem__(self, key: ResponseKey) -> Response:
        start, length = self._places[key]
        return Response(**json.loads(os.pread(self._file, length, start)))

    def add(self, response: Response) -> bool:
        """Append a response and return True, unless one with its key is in the log.

        May be called from any thread. Raises DiskFullError.
        """
        line, key = log_line(response), response.key
        with self._lock, disk_full_named(self.path):
            if self._failure is not None:
                raise self._failure
            if key in self._places:
                return False
            self._append(line)
            self._places[key] = (self._end, len(line))
            self._end += len(line)
            self._unsynced = True
            return True

    def _append(self, line: bytes) -> None:
        """Write all of ``line`` or nothing."""
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise

    def _sync_every_second(self) -> None:
        while not self._closed.wait(_SYNC_EVERY):
            try:
                self._sync()
            except OSError as error:
                self._failure = error
                return

    def _sync(self) -> None:
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file)

    def _index(self, wanted: Collection[ResponseKey]) -> None:
        """Find the lines that count; write the log anew without the others, which go beside it."""
        if not self.path.exists():
            return
        aside: list[tuple[int, int]] = []
        start = 0
        with self.path.open("rb") as file:
            for line in file:
                key = _key(line)
                if key is not None and key in wanted and key not in self._places:
                    self._places[key] = (start, len(line))
                else:
                    aside.append((start, len(line)))
                start += len(line)
            if not aside:
                return
            bad = (line if line.endswith(b"\n") else line + b"\n" for line in _lines(file.fileno(), aside))
            _write(self.path.with_suffix(".aside.jsonl"), "ab", bad)
            scratch = self.path.with_suffix(".partial")
            _write(scratch, "wb", _lines(file.fileno(), self._places.values()))
        scratch.replace(self.path)
        sync(self.path.parent)
        start = 0
        for key, (_, length) in self._places.items():
            self._places[key] = (start, length)
            start += length


def answered(path: Path) -> set[ResponseKey]:
    """The keys of the responses that stand in a log; changes nothing."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        return {key for line in file if (key := _key(line)) is not None}


def keep_aside(path: Path) -> None:
    """Rename ``path``, if it is there, to the first free of ``path.1``, ``path.2``, ..."""
    if path.exists():
        number = 1
        while (kept := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(kept)


def _lines(file: int, places: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    return (os.pread(file, length, start) for start, length in places)


def _write(path: Path, mode: str, lines: Iterable[bytes]) -> None:
    with path.open(mode) as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def log_line(response: Response) -> bytes:
    # ``asdict`` copies every value and would take longer than all other work on a response.
    return (_encoded({column.name: getattr(response, column.name) for column in _COLUMNS}) + "\n").encode()


def _key(line: bytes) -> ResponseKey | None:
    """The key of the response on a line; None for a damaged line."""
    try:
        response = Response(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    is_valid = all(_fits(column, getattr(response, column.name)) for column in _COLUMNS)
    return response.key if is_valid and line.endswith(b"\n") else None


def _fits(column: Column, value: Any) -> bool:
    """Whether ``value`` has the column's type and can be stored as text; valid JSON may be neither."""
    if value is None:
        return column.optional
    if type(value) is not column.type or (column.values and value not in column.values):
        return False
    return column.type is not str or storable(value) == value
