"""Records of a hub data set: parquet tables that hold their images, from a local copy or fetched as files."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, DatasetError
from vold.data.sources import DataSource, rows

_IDS = ("id", "pid", "index", "imagename")
_SUFFIX = ".parquet"


def table_files(benchmark: Benchmark, source: str, split: str) -> list[Path]:
    """The tables of a split in ``hub:OWNER/NAME@REVISION``, in a directory or in one file.

    A fetch shows its progress, takes up where it was cut off, and is cached by the hub's client. Raises ValueError
    where the choice is not clear or not whole, ConnectionError where nothing can be fetched.
    """
    known = benchmark.splits[split]
    place = DataSource.parse(source, Path.cwd())
    if place.split != "train" or place.config or place.format:
        raise DatasetError(f"{source}: say the split with --split; configuration and format follow from it")
    config = "" if Path(place.place).name == known.config else known.config
    return DataSource(place.place, place.revision, known.hub_split, config).files(suffixes=(_SUFFIX,))


def holds_tables(root: Path) -> bool:
    """Whether a directory or file is a copy of a hub data set."""
    return root.suffix == _SUFFIX or (root.is_dir() and next(root.rglob(f"*{_SUFFIX}"), None) is not None)


def hub_commit(file: Path) -> str:
    """The commit that a fetched file is of, from its place in the hub's cache."""
    found = re.search(r"/snapshots/([0-9a-f]{40})/", file.as_posix())
    return found[1] if found else ""


def check_fetched(file: Path, sha256: str) -> None:
    """The hub's client names large files by their hash; raises DatasetError where a fetched one is another."""
    stored = file.resolve()
    if hub_commit(file) and re.fullmatch("[0-9a-f]{64}", stored.name) and stored.name != sha256:
        raise DatasetError(f"{file}: differs from the file on the hub; delete {stored} and run again")


def parquet_rows(benchmark: Benchmark, file: Path) -> Iterator[BenchmarkRow]:
    """The rows of a table with their images' bytes."""
    for number, fields in rows(file):
        name = next((name for name in _IDS if fields.get(name) not in (None, "")), None)
        if name is None:
            raise DatasetError(f"{file}: row {number} has none of {', '.join(_IDS)}; is this {benchmark.name}?")
        yield benchmark.hub(BenchmarkRow(file, str(fields[name]), fields))
