"""The form that `vold-bench data import` writes: one table per split with images and hashes, and a manifest.

``DIR/manifest.json`` describes the splits and their sources. Its ``sha256`` covers the rest of the manifest.

``DIR/<split>.parquet`` has one row per problem: the fields of ``Problem``, ``images`` (their unchanged bytes),
``image_sha256``, and ``sha256`` of all fields and image hashes. It is neither compressed nor encoded, so that a changed
byte can be traced to its row and image.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.benchmarks.base import Benchmark, Dataset, DatasetError
from bench.records import Problem
from vold.data.images import cache_image, cached_image_path

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MANIFEST = "manifest.json"
SCHEMA = "vold-bench/benchmark@1"
_FIELDS = ("id", "question", "options", "answer", "kind", "cluster", "category", "precision", "unscorable")
_GROUP_BYTES = 32_000_000
_GROUP_ROWS = 64
_AGAIN = "get a new copy, or import again"


def is_imported(path: Path) -> bool:
    """Whether an import wrote this directory, or the directory of this table."""
    return (_home(path) / MANIFEST).is_file()


def _home(path: Path) -> Path:
    return path.parent if path.suffix == ".parquet" else path


def row_hash(fields: Mapping[str, object], images: list[str]) -> str:
    """SHA-256 of a problem's fields and the hashes of its images."""
    return hashlib.sha256(json.dumps([*(fields[name] for name in _FIELDS), images]).encode()).hexdigest()


class Writer:
    """Writes a table a few rows at a time. Call ``close`` at the end."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        text, texts = pa.string(), pa.list_(pa.string())
        types = {"options": texts, "precision": pa.int64(), "images": pa.list_(pa.binary()), "image_sha256": texts}
        names = (*_FIELDS, "images", "image_sha256", "sha256")
        self._schema = pa.schema([(name, types.get(name, text)) for name in names])
        self._table = pyarrow.parquet.ParquetWriter(
            file, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._rows: list[dict[str, object]] = []
        self._bytes = 0

    def add(self, problem: Problem, images: list[bytes]) -> None:
        """Append a problem with the bytes of its images; ``problem.images`` is ignored."""
        fields = {name: value for name, value in asdict(problem).items() if name in _FIELDS}
        fields["options"] = list(problem.options)
        hashes = [hashlib.sha256(content).hexdigest() for content in images]
        self._rows.append({**fields, "images": images, "image_sha256": hashes, "sha256": row_hash(fields, hashes)})
        self._bytes += sum(map(len, images))
        if self._bytes >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._table.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._table.close()


def manifest_text(benchmark: str, splits: Mapping[str, object]) -> str:
    """The manifest as JSON, including its hash."""
    content = {"schema": SCHEMA, "benchmark": benchmark, "splits": dict(splits)}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, ensure_ascii=False) + "\n"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an imported directory. Raises DatasetError if it is missing, malformed or changed."""
    file = _home(path) / MANIFEST
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{file}: not JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("splits"), dict):
        raise DatasetError(f"{file}: does not describe an import ({SCHEMA}); {_AGAIN}")
    if not all(re.fullmatch(r"\w+", split) for split in content["splits"]):  # parts of file names
        raise DatasetError(f"{file}: a split's name may have only letters, digits and _; {_AGAIN}")
    if text != manifest_text(content.get("benchmark", ""), content["splits"]):
        raise DatasetError(f"{file}: was changed; {_AGAIN}")
    return content


def read_imported(benchmark: Benchmark, path: Path, split: str | None, *, require_images: bool = True) -> Dataset:
    """Read a split, by default the first in the benchmark's order. Its images become files in the cache.

    path: the directory, or one of its tables. Raises DatasetError, also for a changed row or image.
    """
    manifest = read_manifest(path)
    if manifest["benchmark"] != benchmark.name:
        raise DatasetError(f"{path}: contains {manifest['benchmark']}, not {benchmark.name}; choose another directory")
    if split is None and path.suffix == ".parquet":
        split = path.stem
    if split is not None:
        benchmark.check_split(split)
    name = next((name for name in imported_splits(benchmark, path) if split in (name, None)), None)
    if name is None:
        raise DatasetError(
            f"{path}: the split {split} is not imported, only {', '.join(manifest['splits'])}; import it with "
            f"`vold-bench data import SOURCE --benchmark {benchmark.name} --split {split}`"
        )
    problems = tuple(_problems(benchmark.name, _home(path) / f"{name}.parquet", require_images))
    if len(problems) != manifest["splits"][name]["rows"]:
        raise DatasetError(f"{path}: {name}.parquet has {len(problems)} rows, not as imported; {_AGAIN}")
    return Dataset(benchmark.name, benchmark.name, name, False, problems)


def imported_splits(benchmark: Benchmark, path: Path) -> list[str]:
    """The imported splits in the benchmark's order. Raises DatasetError."""
    imported = read_manifest(path)["splits"]
    return [name for name in benchmark.splits if name in imported]


def _problems(benchmark: str, file: Path, require_images: bool) -> Iterator[Problem]:
    for group in row_groups(file):
        rows = group.fields()
        if any(row_hash(row, row["image_sha256"]) != row["sha256"] for row in rows):
            raise _changed(file, "a row")
        hashes = [name for row in rows for name in row["image_sha256"]]
        if require_images and not all(cached_image_path(name).is_file() for name in hashes):
            contents = [content for images in group.images() for content in images]
            if [hashlib.sha256(content).hexdigest() for content in contents] != hashes:
                raise _changed(file, "an image")
            for content in contents:
                cache_image(content)
        for row in rows:
            fields = {**{name: row[name] for name in _FIELDS}, "options": tuple(row["options"])}
            paths = tuple(cached_image_path(name) for name in row["image_sha256"])
            yield Problem(benchmark=benchmark, images=paths, **fields)


def _changed(file: Path, part: str) -> DatasetError:
    return DatasetError(f"{file}: {part} was changed; `vold-bench data verify {file.parent}` shows which; {_AGAIN}")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a table that are read together. ``first`` counts from 1. Reading raises DatasetError."""

    file: Path
    number: int
    first: int
    size: int
    _table: "pyarrow.parquet.ParquetFile"

    def fields(self) -> list[dict[str, Any]]:
        """All columns except the images' bytes."""
        return self._read([*_FIELDS, "image_sha256", "sha256"])

    def images(self) -> list[list[bytes]]:
        """The images of each row."""
        return [row["images"] for row in self._read(["images"])]

    def _read(self, columns: list[str]) -> list[dict[str, Any]]:
        import pyarrow

        try:
            rows = self._table.read_row_group(self.number, columns=columns).to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise self._unreadable(f"unreadable ({error})") from error
        if len(rows) != self.size or (rows and rows[0].keys() != set(columns)):
            raise self._unreadable("does not have the rows and columns of an import")
        return rows

    def _unreadable(self, fault: str) -> DatasetError:
        return DatasetError(f"{self.file}: rows {self.first} to {self.first + self.size - 1}: {fault}; {_AGAIN}")


def row_groups(file: Path) -> Iterator[RowGroup]:
    """The rows of a table, some at a time. Raises DatasetError if there is no readable table."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: missing; {_AGAIN}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"{file}: not a parquet table ({error}); {_AGAIN}") from error
    first = 1
    with table:
        for number in range(table.num_row_groups):
            size = table.metadata.row_group(number).num_rows
            yield RowGroup(file, number, first, size, table)
            first += size


def file_hashes(file: Path) -> dict[str, str]:
    """MD5, by which published tables are identified, and SHA-256 of a file."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            md5.update(block)
            sha256.update(block)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
