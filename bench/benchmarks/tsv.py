"""Reads records from VLMEvalKit's tables: tab-separated values with images in base64."""

import ast
import base64
import binascii
import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, DatasetError

_REFERENCE = 64
"""A value of ``image`` with at most this many characters is the index of another row, whose image it shares."""
_ABSENT = ("", "nan", "NaN")
_FIELD_LIMIT = 2**31 - 1  # characters; the csv module's own limit is too low for images


def tsv_rows(benchmark: Benchmark, file: Path, split: str) -> Iterator[BenchmarkRow]:
    """The rows of a table with the bytes of their images. Raises DatasetError, also if the file is truncated."""
    shared = _shared(file)
    for row in _rows(file):
        image = row.optional("image")
        images = _images(row, shared.get(image, image) if len(image) <= _REFERENCE else image)
        key = row.optional("id") or row.id
        yield benchmark.tsv(replace(row, id=key, images=images), split)


def _rows(file: Path) -> Iterator[BenchmarkRow]:
    """Rows with their index as the id. Empty fields count as absent, since the format cannot tell the two apart."""
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            table = csv.reader(lines, delimiter="\t", strict=True)
            names = next(table, [])
            if not {"index", "image"} <= set(names):
                raise DatasetError(f"{file}: needs the columns index and image, found {', '.join(names)[:200]}")
            for number, values in enumerate(table, 1):
                if len(values) != len(names):
                    raise DatasetError(
                        f"{file}: row {number} has {len(values)} of {len(names)} columns; "
                        "the file may be truncated: get a new copy"
                    )
                fields = {name: None if value in _ABSENT else value for name, value in zip(names, values, strict=True)}
                if fields["index"] is None:
                    raise DatasetError(f"{file}: row {number} has no index; get a new copy")
                yield BenchmarkRow(file, fields["index"], fields)
    except csv.Error as error:
        raise DatasetError(f"{file}: {error}; the file may be truncated: get a new copy") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: not UTF-8 text ({error.reason}); get a new copy") from error


def _shared(file: Path) -> dict[str, str]:
    """Index to image of the rows that others refer to. The table is read twice to save memory."""
    referenced = {image for row in _rows(file) if 0 < len(image := row.optional("image")) <= _REFERENCE}
    return {row.id: row.optional("image") for row in _rows(file) if row.id in referenced} if referenced else {}


def _images(row: BenchmarkRow, image: str) -> tuple[bytes, ...]:
    if len(image) <= _REFERENCE:
        raise row.error(f"no image (image is {image!r})" if image else "no image")
    is_list = image.startswith("[")
    try:
        parts = ast.literal_eval(image) if is_list else [image]
        return tuple(base64.b64decode(part, validate=True) for part in parts)
    except (ValueError, SyntaxError, TypeError, MemoryError, binascii.Error) as error:
        raise row.error("its image is not base64", "the file may be truncated: get a new copy") from error
