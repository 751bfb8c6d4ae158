"""``problems.parquet``: the problems that the model was asked, so that a result can be shown and exported by itself."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.evaluation.selection import Selection
from bench.records import Problem, columns

FILE = "problems.parquet"
_TYPES = {str: pa.string(), int: pa.int64(), tuple: pa.list_(pa.string())}
_SCHEMA = pa.schema([(column.name, _TYPES[column.type]) for column in columns(Problem)])


def write_problems(folder: Path, selections: Sequence[Selection]) -> None:
    """One row per problem, in the order in which they were asked. Images are stored as file names."""
    rows = [_row(problem) for selection in selections for problem in selection.problems]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), folder / FILE)


def read_problems(folder: Path) -> Iterator[Problem]:
    """The problems of a result; their images are bare file names."""
    for row in pq.read_table(folder / FILE, schema=_SCHEMA).to_pylist():
        images = tuple(Path(name) for name in row.pop("images"))
        yield Problem(**{**row, "options": tuple(row["options"])}, images=images)


def _row(problem: Problem) -> dict[str, object]:
    row = {name: getattr(problem, name) for name in _SCHEMA.names}
    return {**row, "options": list(problem.options), "images": [image.name for image in problem.images]}
