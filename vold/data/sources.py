"""Sources of training data: a file, a directory, or a data set on the hub, which is read as files too.

A source is written ``file:PATH`` or ``hub:OWNER/NAME@REVISION``, with options after a question mark:
``hub:open-r1/Mixture-of-Thoughts?config=math&split=train``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlencode

from vold.locations import hub_location, hub_name, on_hub

SUFFIXES = (".parquet", ".jsonl", ".json")
_SPLITS = re.compile(r"train|training|validation|valid|val|dev|test|testing|eval|testmini")
_PART = re.compile(r"-\d{5}-of-(\d{5})\b")
_OPTIONS = ("split", "config", "format", "instruction", "malformed")
_BATCH = 256

NumberedRow = tuple[int, Any]
"""(number of the line or row, from 1, its content)."""


class AbsentData(ValueError):
    """The data are not on this machine. The message says how to get them."""


class UndecodableRow:
    """Takes the place of a row that could not be decoded."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DataSource:
    """A source and its options.

    location: a path, or ``OWNER/NAME`` if ``revision`` is set. format: a format of ``vold.data.formats``; empty to
    recognise it from the first row. instruction: name of a sentence that follows every prompt. malformed: ``refuse`` or
    ``skip`` for rows that do not fit the format.
    """

    location: str
    revision: str = ""
    split: str = "train"
    config: str = ""
    format: str = ""
    instruction: str = ""
    malformed: str = "refuse"

    @classmethod
    def parse(cls, text: str, base: Path) -> "DataSource":
        """Parse ``file:PATH``, ``hub:NAME`` or a path, relative to ``base``. Raises ValueError for anything else."""
        head, _, query = text.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := options.keys() - set(_OPTIONS):
            raise ValueError(f"{text!r}: unknown option {min(unknown)!r}; valid options: {', '.join(_OPTIONS)}")
        if options.get("malformed", "refuse") not in ("refuse", "skip"):
            raise ValueError(f"{text!r}: malformed must be refuse or skip")
        if not on_hub(head):
            path = Path(head.removeprefix("file:")).expanduser()
            return cls(str((base / path).resolve()), **options)
        name, revision = hub_name(head)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ValueError(f"{text!r}: a hub data set is written hub:OWNER/NAME@REVISION")
        return cls(name, revision, **options)

    @property
    def options(self) -> str:
        """The options that differ from their defaults, as ``parse`` reads them. Empty if there are none."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _OPTIONS}
        defaults = {f.name: f.default for f in fields(self)}
        changed = {name: value for name, value in values.items() if value != defaults[name]}
        return f"?{urlencode(changed)}" if changed else ""

    def __str__(self) -> str:
        text = hub_location(self.location, self.revision) if self.revision else f"file:{self.location}"
        return text + self.options

    def files(self, *, fetch: bool = True, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
        """The files of the split on this machine. They are fetched from the hub if necessary and ``fetch`` allows it.

        Files with other suffixes are ignored. Raises AbsentData if there are no files, ValueError if it is not clear
        which are meant or some are missing, and ConnectionError if they cannot be fetched.
        """
        root = self._snapshot(fetch, suffixes) if self.revision else Path(self.location)
        if root.is_file():
            return [root]
        if not root.is_dir():
            raise AbsentData(f"nothing at {root}; check the path")
        paths = (path for path in root.rglob("*") if path.suffix in suffixes and path.is_file())
        names = [path.relative_to(root).as_posix() for path in paths]
        return [root / name for name in select(names, self.config, self.split, str(self))]

    def _snapshot(self, fetch: bool, suffixes: tuple[str, ...]) -> Path:
        """The data set's directory in the hub's cache, with at least the files of the split."""
        import httpx
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

        repository: dict[str, Any] = {"repo_id": self.location, "repo_type": "dataset", "revision": self.revision}
        failure: Exception | None = None
        if fetch and not constants.HF_HUB_OFFLINE:
            try:
                names = [name for name in HfApi().list_repo_files(**repository) if name.endswith(suffixes)]
                wanted = select(names, self.config, self.split, str(self))
                return Path(snapshot_download(**repository, allow_patterns=wanted))
            except RepositoryNotFoundError as error:
                raise ValueError(
                    f"{self}: the hub has no such data set, or you have no access to it ({error})"
                ) from error
            except (HfHubHTTPError, httpx.HTTPError, LocalEntryNotFoundError, OSError) as error:
                failure = error
        try:
            return Path(snapshot_download(**repository, local_files_only=True))
        except LocalEntryNotFoundError as error:
            if failure is not None:
                raise ConnectionError(f"{self}: cannot be fetched from the hub ({failure}); run again") from failure
            raise AbsentData(
                f"{self}: not on this machine; fetch it on a machine with a network "
                f"(`hf download {self.location} --repo-type dataset --revision {self.revision}`), "
                "or name a local copy as file:PATH"
            ) from error


def select(names: Iterable[str], config: str, split: str, source: str) -> list[str]:
    """The data files of one configuration and split, sorted.

    A configuration is the name of a directory or file. A split is the first word of a file's name, or a directory.
    Files that name no split are the training split. Raises ValueError naming the choices, or if parts are missing.
    """
    matches = sorted(
        name for name in names if name.endswith(SUFFIXES) and not any(p.startswith(".") for p in name.split("/"))
    )
    if config:
        matches = [name for name in matches if config in _words(name)]
    elif any(_split(name) is None for name in matches):
        about = ("dataset_infos.json", "dataset_dict.json")
        matches = [name for name in matches if PurePosixPath(name).name not in about]
    directories = sorted({str(PurePosixPath(name).parent) for name in matches})
    if not config and len(directories) > 1 and not all(_SPLITS.fullmatch(name) for name in directories):
        raise ValueError(f"{source}: has several configurations; choose one with config= ({', '.join(directories)})")
    files = [name for name in matches if (_split(name) or "train") == split]
    if not files:
        shown = ", ".join(matches[:6]) or f"none with {' or '.join(SUFFIXES)}"
        raise ValueError(f"{source}: no data file of split {split!r}; its files are {shown}")
    parts = [part for part in map(_PART.search, files) if part]
    if parts and len(parts) < int(parts[0][1]):
        raise ValueError(f"{source}: has only {len(parts)} of {int(parts[0][1])} parts; fetch the others")
    return files


def _words(name: str) -> Sequence[str]:
    path = PurePosixPath(name)
    return (*path.parts[:-1], path.stem)


def _split(name: str) -> str | None:
    """The split in the path of a file, if there is one."""
    first = re.split(r"[-._]", PurePosixPath(name).name)[0]
    return next((word for word in (first, *_words(name)) if _SPLITS.fullmatch(word)), None)


def rows(file: Path) -> Iterator[NumberedRow]:
    """The rows of a parquet, JSONL or JSON file with their numbers. A row that cannot be decoded is an UndecodableRow.

    Raises ValueError if the file itself cannot be read.
    """
    if file.suffix == ".parquet":
        return _parquet(file)
    return _json(file) if file.suffix == ".json" else _lines(file)


def _parquet(file: Path) -> Iterator[NumberedRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except pyarrow.ArrowException as error:
        raise ValueError(
            f"{file}: unreadable after row {number} ({error}); replace the file with a new copy"
        ) from error


def _json(file: Path) -> Iterator[NumberedRow]:
    """The rows of a JSON list, or of a file with one object per line, which is often named .json too."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        yield from _lines(file)
        return
    yield from enumerate(content if isinstance(content, list) else [content], 1)


def _lines(file: Path) -> Iterator[NumberedRow]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    yield number, UndecodableRow(f"not JSON ({error}); every line must be one object")
