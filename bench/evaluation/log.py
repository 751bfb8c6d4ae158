"""The log of a running evaluation: one JSON line a response, kept by whole groups, safe against kill -9."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.records import Response
from vold.files import disk_full_named

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """A response with the benchmark it belongs to."""

    benchmark: str
    response: Response

    @property
    def key(self) -> Key:
        return (self.benchmark, self.response.id, self.response.sample)

    def line(self) -> str:
        return json.dumps({"benchmark": self.benchmark, **asdict(self.response)}, sort_keys=True) + "\n"


class ResponseLog:
    """Appends groups of responses to ``path`` and knows which groups are already there.

    A group counts only when it is whole: decoding in the same groups again gives the same numbers. Lines that are
    damaged or belong to no whole group are set aside beside the log and asked again.
    """

    def __init__(self, path: Path, groups: Sequence[Sequence[Key]]) -> None:
        self.path = path
        kept, aside = _read(path, groups)
        self.responses: dict[Key, Response] = {asked.key: asked.response for asked in kept}
        if aside:
            with disk_full_named(path):
                _append(path.with_suffix(".aside.jsonl"), aside)
                scratch = path.with_suffix(".partial")
                scratch.unlink(missing_ok=True)
                _append(scratch, (asked.line().encode() for asked in kept))
                scratch.replace(path)

    def has(self, group: Sequence[Key]) -> bool:
        return all(key in self.responses for key in group)

    def add(self, group: Iterable[Asked]) -> None:
        """Append a whole group; on the disk when this returns. Raises DiskFullError."""
        group = list(group)
        with disk_full_named(self.path):
            _append(self.path, [b"".join(asked.line().encode() for asked in group)])
        self.responses.update({asked.key: asked.response for asked in group})


def _append(path: Path, lines: Iterable[bytes]) -> None:
    with path.open("ab") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, groups: Sequence[Sequence[Key]]) -> tuple[list[Asked], list[bytes]]:
    """(responses of whole groups in order, everything else as raw lines)."""
    if not path.exists():
        return [], []
    read: dict[Key, tuple[Asked, bytes]] = {}
    aside: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        asked = _parse(line)
        if asked is None or asked.key in read:
            aside.append(line.rstrip(b"\n") + b"\n")
        else:
            read[asked.key] = (asked, line)
    whole = [key for group in groups if all(key in read for key in group) for key in group]
    kept = [read.pop(key)[0] for key in whole]
    return kept, aside + [line for _, line in read.values()]


def _parse(line: bytes) -> Asked | None:
    try:
        row: dict[str, Any] = json.loads(line)
        benchmark = str(row.pop("benchmark"))
        response = Response(**row)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return Asked(benchmark, response) if line.endswith(b"\n") else None
