"""The log of a running evaluation: one JSON line per response, written when it arrives, safe against kill -9."""

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

from bench.records import Column, Response, ResponseKey, columns, storable
from vold.files import naming_full_disk, sync

_SYNC_EVERY = 1.0
_COLUMNS = columns(Response)
_encoded = json.JSONEncoder(sort_keys=True).encode


class ResponseLog(Mapping[ResponseKey, Response]):
    """The responses in the file ``path`` by key; further ones are appended.

    A complete, valid line counts if its key is among ``expected`` and occurs for the first time. All other lines (cut
    off, damaged, repeated) are moved to ``*.aside.jsonl``, so that their responses are requested again. The texts stay
    on disk; memory holds their positions. If the process is killed, every response that ``add`` took is kept. If the
    machine loses power, those of the last second may be lost.
    """

    def __init__(self, path: Path, expected: Collection[ResponseKey]) -> None:
        self.path = path
        self._spans: dict[ResponseKey, tuple[int, int]] = {}
        """Position and length of each response's line."""
        with naming_full_disk(path):
            self._read_spans(expected)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._end = os.fstat(self._file).st_size
        self._lock, self._closed = Lock(), Event()
        self._unsynced, self._failure = False, None
        self._syncing = Thread(target=self._sync_every_second, name="response log", daemon=True)
        self._syncing.start()

    def __enter__(self) -> "ResponseLog":
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Raises the error of a failed sync, unless the context is left because of another error."""
        self._closed.set()
        self._syncing.join()
        try:
            with naming_full_disk(self.path):
                self._sync()
                if self._failure is not None:
                    raise self._failure
        except OSError:
            if kind is None:
                raise
        finally:
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[ResponseKey]:
        return iter(self._spans)

    def __contains__(self, key: object) -> bool:
        return key in self._spans

    def __getitem__(self, key: ResponseKey) -> Response:
        start, length = self._spans[key]
        return Response(**json.loads(os.pread(self._file, length, start)))

    def add(self, response: Response) -> bool:
        """Append a response and return True, unless one with its key is in the log.

        May be called from any thread. Raises DiskFullError.
        """
        line, key = log_line(response), response.key
        with self._lock, naming_full_disk(self.path):
            if self._failure is not None:
                raise self._failure
            if key in self._spans:
                return False
            self._append(line)
            self._spans[key] = (self._end, len(line))
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

    def _read_spans(self, expected: Collection[ResponseKey]) -> None:
        """Find the lines that count, and move all others to another file."""
        if not self.path.exists():
            return
        aside: list[tuple[int, int]] = []
        start = 0
        with self.path.open("rb") as file:
            for line in file:
                key = _key(line)
                if key is not None and key in expected and key not in self._spans:
                    self._spans[key] = (start, len(line))
                else:
                    aside.append((start, len(line)))
                start += len(line)
            if not aside:
                return
            bad = (line if line.endswith(b"\n") else line + b"\n" for line in _lines(file.fileno(), aside))
            _write(self.path.with_suffix(".aside.jsonl"), "ab", bad)
            scratch = self.path.with_suffix(".partial")
            _write(scratch, "wb", _lines(file.fileno(), self._spans.values()))
        scratch.replace(self.path)
        sync(self.path.parent)
        start = 0
        for key, (_, length) in self._spans.items():
            self._spans[key] = (start, length)
            start += length


def logged_keys(path: Path) -> set[ResponseKey]:
    """The keys of the responses in a log, which is only read; empty if there is no log."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        return {key for line in file if (key := _key(line)) is not None}


def move_aside(path: Path) -> None:
    """Rename ``path``, if it exists, to the first free name of ``path.1``, ``path.2``, ..."""
    if path.exists():
        number = 1
        while (free := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(free)


def _lines(file: int, spans: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    return (os.pread(file, length, start) for start, length in spans)


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


def _fits(column: Column, value: object) -> bool:
    """Whether ``value`` has the column's type and can be stored as text; valid JSON may be neither."""
    if value is None:
        return column.optional
    if type(value) is not column.type or (column.values and value not in column.values):
        return False
    return not isinstance(value, str) or storable(value) == value
