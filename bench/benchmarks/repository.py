"""Reads records in the form of the benchmarks' own repositories.

A benchmark's directory contains:

mmmu_pro
    ``standard10``: ``records_standard10_1730.jsonl``, ``standard4``: ``records_standard4_1730.jsonl``, with images
    ``images/<id>_<k>.png`` for each ``<image k>``;
    ``vision``: ``records.jsonl`` with id, image (a path in the directory), options (a list, or a text with a Python
    list), answer and subject, and without a question; or ``vision_pages/index.jsonl``.
mathvision
    ``test``: ``test.jsonl``, ``testmini``: ``testmini.jsonl``; ``image`` is a path in the directory.
mathvista
    ``testmini``: ``testmini.json``, a dictionary by pid; ``image`` is a path in the directory.
logicvista
    ``test``: ``dataset.json``, a dictionary by ``v1_k``; images ``images/<imagename>``.
transcription
    ``test``: ``test.jsonl`` with id, image (a path in the directory), question, answer and, if wanted, category.

A small-world data set is such a directory with a descriptor ``smallworld.json``:
``{"schema": "vold-bench/dataset@1", "name": "smallworld-...", "benchmark": ..., "split": ..., "synthetic": true,
"independent": true}``. Its records are drawn independently of each other. Each record is therefore a cluster of its
own, even if several have the same question.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.benchmarks.base import Benchmark, BenchmarkRow, Dataset, DatasetError, check_ids, type_name
from bench.records import Problem

DESCRIPTOR = "smallworld.json"
DESCRIPTOR_SCHEMA = "vold-bench/dataset@1"
_NAME = re.compile(r"(?!\.+$)[\w.-]{1,100}")
_IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp")


def jsonl_rows(file: Path) -> Iterator[BenchmarkRow]:
    """Rows of a JSONL file by their ``id``."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except json.JSONDecodeError as error:
                raise DatasetError(
                    f"{file}:{number}: not JSON ({error.msg}); the file may be truncated: get a new copy"
                ) from error
            if not isinstance(fields, dict) or not isinstance(fields.get("id"), str | int):
                raise DatasetError(f"{file}:{number}: a record must be an object with an 'id'; correct the line")
            yield BenchmarkRow(file, str(fields["id"]), fields)


def dictionary_rows(file: Path) -> Iterator[BenchmarkRow]:
    """Rows of a JSON dictionary by its keys."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if repeated:
            raise DatasetError(f"{file}: the key {repeated[0]!r} occurs twice; every id must be unique")
        return dict(pairs)

    try:
        records = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{file}:{error.lineno}: not JSON ({error.msg}); the file may be truncated: get a new copy"
        ) from error
    if not isinstance(records, dict):
        raise DatasetError(f"{file}: must contain a dictionary of records by id, found {type_name(records)}")
    for key, fields in records.items():
        if not isinstance(fields, dict):
            raise DatasetError(f"{file}: record {key!r} must be an object, not {type_name(fields)}; correct it")
        yield BenchmarkRow(file, key, fields)


def image_path(row: BenchmarkRow, root: Path, relative: str) -> Path:
    """An image's path under ``root``; a path that leads out of it is refused.

    Copies of a benchmark differ in the format of their images: another suffix serves as well.
    """
    path = root / relative
    if not path.resolve().is_relative_to(root.resolve()):
        raise row.error(f"the image {relative!r} is outside of {root}")
    candidates = (path, *(path.with_suffix(suffix) for suffix in _IMAGE_SUFFIXES))
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def read_repository(benchmark: Benchmark, root: Path, split: str | None, *, require_images: bool = True) -> Dataset:
    """Read a split. None means the first split with all records and images; skipped splits are noted in the result.

    root: the benchmark's directory, or one of its record files.
    require_images: whether missing images are an error. It does not decide which split is read, so that a blind
        evaluation asks the same problems. If no split is complete, the first one is read or refused.

    Raises DatasetError.
    """
    root, split = _locate(benchmark, root, split)
    names = repository_splits(benchmark, root) if split is None else [split]
    if not names:
        raise _absent(benchmark, root, [file for split in benchmark.splits.values() for file in split.files])
    first: Dataset | None = None
    passed_over: dict[str, str] = {}
    for name in names:
        dataset = _split(benchmark, root, name)
        first = first or dataset
        fault = _missing_images(dataset.problems, root) if require_images or len(names) > 1 else ""
        if not fault:
            return replace(dataset, passed_over=passed_over)
        passed_over[name] = fault
    assert first is not None
    if require_images:
        raise DatasetError(
            f"{split_rows(benchmark, root, names[0])[0]}: {passed_over[names[0]]}. {_ways_out(benchmark, root)}"
        )
    return first


def repository_splits(benchmark: Benchmark, root: Path) -> list[str]:
    """The splits whose record files exist in a benchmark's directory; their content is not checked."""
    return [name for name in benchmark.splits if _file(benchmark, root, name) is not None]


def _split(benchmark: Benchmark, root: Path, name: str) -> Dataset:
    descriptor = read_descriptor(benchmark, root)
    file, rows = split_rows(benchmark, root, name)
    problems = tuple(_problem(benchmark, row) for row in rows)
    check_ids((problem.id for problem in problems), file)
    if descriptor.get("independent") is True:
        problems = tuple(replace(problem, cluster=problem.id) for problem in problems)
    return Dataset(
        benchmark.name,
        descriptor.get("name", benchmark.name),
        descriptor.get("split", name),
        synthetic=bool(descriptor),
        problems=problems,
    )


def split_rows(benchmark: Benchmark, root: Path, split: str) -> tuple[Path, Iterator[BenchmarkRow]]:
    """The record file of a split and its rows with the paths of their images, which may not exist."""
    file = _file(benchmark, root, split)
    if file is None:
        raise _absent(benchmark, root, benchmark.splits[split].files)
    read_rows = benchmark.rows or (jsonl_rows if file.suffix == ".jsonl" else dictionary_rows)
    return file, (replace(row, images=benchmark.repository(row, root)) for row in read_rows(file))


def _problem(benchmark: Benchmark, row: BenchmarkRow) -> Problem:
    return replace(benchmark.problem(row), images=tuple(path for path in row.images if isinstance(path, Path)))


def _absent(benchmark: Benchmark, root: Path, files: Sequence[str]) -> DatasetError:
    return DatasetError(
        f"{root}: no records of {benchmark.name}. It must contain {' or '.join(files)}; "
        "import any other form with `vold-bench data import`"
    )


def _locate(benchmark: Benchmark, root: Path, split: str | None) -> tuple[Path, str | None]:
    if split is not None:
        benchmark.check_split(split)
    if root.is_file():
        for name, description in benchmark.splits.items():
            for file in description.files:
                if root.as_posix().endswith("/" + file):
                    return root.parents[file.count("/")], name
        raise DatasetError(
            f"{root}: not a record file of {benchmark.name}. Name the directory instead, "
            "or import another form with `vold-bench data import`"
        )
    if not root.is_dir():
        raise DatasetError(f"{root}: no such directory; name the directory with the files of {benchmark.name}")
    return root, split


def _file(benchmark: Benchmark, root: Path, split: str) -> Path | None:
    return next((root / name for name in benchmark.splits[split].files if (root / name).is_file()), None)


def read_descriptor(benchmark: Benchmark, root: Path) -> dict[str, Any]:
    """The content of ``smallworld.json``, the description of generated records, or {}. Raises DatasetError."""
    file = root / DESCRIPTOR
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: not JSON ({error.msg}); generate the data set again") from error
    if (
        not isinstance(content, dict)
        or content.get("schema") != DESCRIPTOR_SCHEMA
        or content.get("benchmark") != benchmark.name
    ):
        raise DatasetError(
            f"{file}: does not describe a {DESCRIPTOR_SCHEMA} of {benchmark.name}; generate the data set again"
        )
    for field in ("name", "split"):  # parts of file names and tables
        value = content.get(field)
        if field in content and not (isinstance(value, str) and _NAME.fullmatch(value)):
            raise DatasetError(f"{file}: invalid {field} {value!r}; use only letters, digits, '_', '-' and '.'")
    return content


def _ways_out(benchmark: Benchmark, root: Path) -> str:
    """What a user can do about missing images."""
    other_split = ", choose a split that has its images with --split" if len(benchmark.splits) > 1 else ""
    return (
        f"Put the images under {root}, import a copy that includes images with `vold-bench data import`, import only "
        f"the records that have images with its option --partial{other_split}, or evaluate without images "
        "(`vold-bench eval --blind`)"
    )


def _missing_images(problems: Iterable[Problem], root: Path) -> str:
    """The first missing image and the number of missing images, or an empty text. Does not depend on ``root``."""
    images = [(problem.id, path) for problem in problems for path in problem.images]
    missing = [(key, path) for key, path in images if not path.is_file()]
    if not missing:
        return ""
    key, path = missing[0]
    return f"record {key!r}: no image {path.relative_to(root)} ({len(missing)} of {len(images)} images are missing)"
