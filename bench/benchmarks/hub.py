"""Reads records from the parquet tables of a hub data set, local or downloaded. The tables include the images."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, DatasetError
from vold.data.sources import DataSource, rows

_IDS = ("id", "pid", "index", "imagename")
_SUFFIX = ".parquet"


def table_files(benchmark: Benchmark, source: str, split: str) -> list[Path]:
    """The tables of a split in ``hub:OWNER/NAME@REVISION``, in a directory or in one file.

    Downloads show their progress, resume after an interruption, and are cached by the hub's client. Raises ValueError
    if the tables are ambiguous or incomplete, and ConnectionError if they cannot be downloaded.
    """
    description = benchmark.splits[split]
    data = DataSource.parse(source, Path.cwd())
    if data.split != "train" or data.config or data.format:
        raise DatasetError(f"{source}: name only the data set, and the split with --split, which decides the rest")
    config = "" if Path(data.location).name == description.config else description.config
    return DataSource(data.location, data.revision, description.hub_split, config).files(suffixes=(_SUFFIX,))


def holds_tables(root: Path) -> bool:
    """Whether a directory or file is a copy of a hub data set."""
    return root.suffix == _SUFFIX or (root.is_dir() and next(root.rglob(f"*{_SUFFIX}"), None) is not None)


def hub_commit(file: Path) -> str:
    """The commit of a downloaded file, from its path in the hub's cache; empty for other files."""
    match = re.search(r"/snapshots/([0-9a-f]{40})/", file.as_posix())
    return match[1] if match else ""


def check_fetched(file: Path, sha256: str) -> None:
    """Raise DatasetError if a downloaded file does not have the hash by which the hub's client names it."""
    stored = file.resolve()
    if hub_commit(file) and re.fullmatch("[0-9a-f]{64}", stored.name) and stored.name != sha256:
        raise DatasetError(f"{file}: differs from the file on the hub; delete {stored} and run again")


def parquet_rows(benchmark: Benchmark, file: Path) -> Iterator[BenchmarkRow]:
    """The rows of a table with the bytes of their images."""
    for number, fields in rows(file):
        name = next((name for name in _IDS if fields.get(name) not in (None, "")), None)
        if name is None:
            raise DatasetError(f"{file}: row {number} has none of {', '.join(_IDS)}; is this {benchmark.name}?")
        yield benchmark.hub(BenchmarkRow(file, str(fields[name]), fields))
