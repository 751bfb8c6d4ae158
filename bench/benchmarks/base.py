"""What all benchmarks share: finding records, reading fields with errors that name the place, pictures, checks.

A benchmark's directory holds its repository's own files:

mmmu_pro
    ``standard10``: ``records_standard10_1730.jsonl``, pictures ``images/<id>_<k>.png`` for each ``<image k>``;
    ``vision``: ``records.jsonl`` with rows id, image (a path inside the directory), options (a list, or a text
    that holds a Python list), answer, subject and no question; or ``vision_pages/index.jsonl``.
mathvision
    ``test``: ``test.jsonl``, ``testmini``: ``testmini.jsonl``; ``image`` is a path inside the directory.
mathvista
    ``testmini``: ``testmini.json``, a dictionary by pid; ``image`` is a path inside the directory.
logicvista
    ``test``: ``dataset.json``, a dictionary by ``v1_k``; pictures ``images/<imagename>``.

A small-world data set lies in such a directory too, with a descriptor ``smallworld.json`` beside the records:
``{"schema": "vold-bench/dataset@1", "name": "smallworld-...", "benchmark": ..., "split": ..., "synthetic": true,
"independent": true}``. Its records are drawn independently of each other, so each is a cluster of its own, even where
they share a question's words.
"""

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import ConfigurationError
from bench.records import Problem
from vold.answers import labels_of_gold

DESCRIPTOR = "smallworld.json"
DESCRIPTOR_SCHEMA = "vold-bench/dataset@1"
PICTURE_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp")


class DatasetError(ConfigurationError):
    """Records or pictures that are not what they must be; names file, id and mend."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record with its place. Every accessor raises DatasetError naming file, id and field."""

    file: Path
    id: str
    fields: Mapping[str, Any]

    def error(self, fault: str, mend: str = "mend the record or take a fresh copy of the file") -> DatasetError:
        return DatasetError(f"{self.file}: record {self.id!r}: {fault}; {mend}")

    def text(self, name: str) -> str:
        """A required text; numbers are written out, as some copies hold them unquoted."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.error(f"{name!r} must be a text, found {_kind(value)}")
        return str(value)

    def optional(self, name: str) -> str:
        """A text that may be absent or null: then empty."""
        return "" if self.fields.get(name) is None else self.text(name)

    def options(self, name: str) -> list[Any]:
        """A list, or a text that holds a Python list; absent or null is empty."""
        value = self.fields.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise self.error(f"{name!r} is no Python list") from error
        if not isinstance(value, list):
            raise self.error(f"{name!r} must be a list, found {_kind(value)}")
        return value

    def picture(self, root: Path, relative: str) -> Path:
        """A picture's path under ``root``; a path that leads out of it is refused.

        Copies of a benchmark differ in the format of their pictures: another suffix serves as well.
        """
        path = root / relative
        if not path.resolve().is_relative_to(root.resolve()):
            raise self.error(f"the picture {relative!r} lies outside {root}")
        candidates = (path, *(path.with_suffix(suffix) for suffix in PICTURE_SUFFIXES))
        return next((candidate for candidate in candidates if candidate.is_file()), path)


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one benchmark is read.

    splits: the record files of each split, the fullest split first; ``problem`` turns a row of such a file,
    with the benchmark's directory, into a Problem. ``rows`` overrides how a file is read.
    """

    name: str
    splits: Mapping[str, Sequence[str]]
    problem: Callable[[Row, Path], Problem]
    rows: Callable[[Path], Iterable[Row]] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A split of a benchmark, loaded. ``name`` differs from the benchmark's where the problems are synthetic."""

    benchmark: str
    name: str
    split: str
    synthetic: bool
    problems: tuple[Problem, ...]


def jsonl_rows(file: Path) -> Iterator[Row]:
    """Rows of a JSONL file by their ``id``."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(
                    f"{file}:{number}: not JSON ({error.msg}); the file may be cut short: take a fresh copy"
                ) from error
            if not isinstance(fields, dict) or not isinstance(fields.get("id"), str | int):
                raise DatasetError(f"{file}:{number}: a record must be an object with an 'id'; mend the line")
            yield Row(file, str(fields["id"]), fields)


def dictionary_rows(file: Path) -> Iterator[Row]:
    """Rows of a JSON dictionary by its keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if repeated:
            raise DatasetError(f"{file}: the key {repeated[0]!r} stands there twice; every id must be unique")
        return dict(pairs)

    try:
        records = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{file}:{error.lineno}: not JSON ({error.msg}); the file may be cut short: take a fresh copy"
        ) from error
    if not isinstance(records, dict):
        raise DatasetError(f"{file}: must hold a dictionary of records by id, found {_kind(records)}")
    for key, fields in records.items():
        if not isinstance(fields, dict):
            raise DatasetError(f"{file}: record {key!r} must be an object, found {_kind(fields)}; mend the record")
        yield Row(file, key, fields)


def scorable(answer: str, options: Sequence[str]) -> str:
    """Why no answer can ever be right, or "" where one can."""
    if not answer.strip():
        return "the record has no answer"
    if options and not labels_of_gold(answer, options):
        return f"the gold {answer!r} is neither a label nor a text of its {len(options)} options"
    return ""


def read(benchmark: Benchmark, root: Path, split: str | None, *, require_pictures: bool = True) -> Dataset:
    """Load a split; None takes the first whose records and pictures are all there.

    root: the benchmark's directory, or one of its record files. Raises DatasetError.
    """
    root, split = _place(benchmark, root, split)
    descriptor = _descriptor(benchmark, root)
    found = {name: file for name in benchmark.splits if (file := _file(benchmark, root, name)) is not None}
    wanted = [split] if split is not None else list(found)
    if not wanted or wanted[0] not in found:
        names = (
            benchmark.splits[split] if split is not None else [n for names in benchmark.splits.values() for n in names]
        )
        raise DatasetError(f"{root}: no records of {benchmark.name}; expected {' or '.join(names)}")
    missing: DatasetError | None = None
    for name in wanted:
        problems = _problems(benchmark, found[name], root)
        if descriptor.get("independent") is True:
            problems = tuple(replace(problem, cluster=problem.id) for problem in problems)
        missing_here = _missing_picture(problems, found[name], root) if require_pictures else None
        if missing_here is None:
            shown = descriptor.get("split", name)
            return Dataset(benchmark.name, descriptor.get("name", benchmark.name), shown, bool(descriptor), problems)
        missing = missing or missing_here
    assert missing is not None
    raise missing


def _place(benchmark: Benchmark, root: Path, split: str | None) -> tuple[Path, str | None]:
    if split is not None and split not in benchmark.splits:
        raise DatasetError(f"{benchmark.name} has no split {split!r}; choose from {', '.join(benchmark.splits)}")
    if root.is_file():
        for name, files in benchmark.splits.items():
            for file in files:
                if root.as_posix().endswith("/" + file):
                    return root.parents[file.count("/")], name
        raise DatasetError(f"{root}: not a record file of {benchmark.name}; name its directory instead")
    if not root.is_dir():
        raise DatasetError(f"{root}: no such directory; it must hold the files of {benchmark.name}")
    return root, split


def _file(benchmark: Benchmark, root: Path, split: str) -> Path | None:
    return next((root / name for name in benchmark.splits[split] if (root / name).is_file()), None)


def _descriptor(benchmark: Benchmark, root: Path) -> dict[str, Any]:
    file = root / DESCRIPTOR
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: not JSON ({error.msg}); write the data set again") from error
    if (
        not isinstance(found, dict)
        or found.get("schema") != DESCRIPTOR_SCHEMA
        or found.get("benchmark") != benchmark.name
    ):
        raise DatasetError(
            f"{file}: does not describe a {DESCRIPTOR_SCHEMA} of {benchmark.name}; write the data set again"
        )
    return found


def _problems(benchmark: Benchmark, file: Path, root: Path) -> tuple[Problem, ...]:
    rows = (benchmark.rows or (jsonl_rows if file.suffix == ".jsonl" else dictionary_rows))(file)
    problems = tuple(benchmark.problem(row, root) for row in rows)
    repeated = [key for key, count in Counter(problem.id for problem in problems).items() if count > 1]
    if repeated:
        raise DatasetError(f"{file}: the id {repeated[0]!r} stands there twice; every id must be unique")
    if not problems:
        raise DatasetError(f"{file}: holds no records; take a fresh copy")
    return problems


def _missing_picture(problems: Iterable[Problem], file: Path, root: Path) -> DatasetError | None:
    pictures = [(problem.id, path) for problem in problems for path in problem.images]
    missing = [(key, path) for key, path in pictures if not path.is_file()]
    if not missing:
        return None
    key, path = missing[0]
    return DatasetError(
        f"{file}: record {key!r}: no picture {path} ({len(missing)} of {len(pictures)} pictures are missing); "
        f"put the pictures under {root}, or choose a split whose pictures are there"
    )
