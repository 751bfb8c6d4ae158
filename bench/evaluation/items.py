"""``items.parquet``: the problems that were asked, so that a result can be shown and exported by itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.evaluation.selection import Selection
from bench.records import Problem, columns

_TYPES = {str: pa.string(), int: pa.int64(), tuple: pa.list_(pa.string())}
_SCHEMA = pa.schema([(column.name, _TYPES[column.type]) for column in columns(Problem)])


def write_items(path: Path, selections: Sequence[Selection]) -> None:
    """A row a problem in the order of asking; ``images`` are names of files."""
    rows = [_row(problem) for selection in selections for problem in selection.problems]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path)


def read_items(path: Path) -> Iterator[Problem]:
    """The problems again; their images are bare names."""
    for row in pq.read_table(path, schema=_SCHEMA).to_pylist():
        images = tuple(Path(name) for name in row.pop("images"))
        yield Problem(**{**row, "options": tuple(row["options"])}, images=images)


def _row(problem: Problem) -> dict[str, Any]:
    row = {name: getattr(problem, name) for name in _SCHEMA.names if name != "images"}
    return {**row, "options": list(problem.options), "images": [image.name for image in problem.images]}
