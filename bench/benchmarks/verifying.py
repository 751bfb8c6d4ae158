"""Finds changes of an imported directory since its import, by file, row and image."""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from bench.benchmarks.base import DatasetError
from bench.benchmarks.imported import MANIFEST, RowGroup, file_hashes, read_manifest, row_groups, row_hash


def differences(root: Path) -> Iterator[str]:
    """One line per changed file, row and image; none if nothing was changed."""
    try:
        splits = read_manifest(root)["splits"]
    except DatasetError as error:
        yield str(error)
        return
    for split, entry in splits.items():
        file = root / f"{split}.parquet"
        if not file.is_file():
            yield f"{file}: missing"
        elif file_hashes(file)["sha256"] != entry["sha256"]:
            yield f"{file}: the file was changed"
            yield from _in_table(file, entry["rows"])
    imported = {MANIFEST, *(f"{split}.parquet" for split in splits)}
    yield from (f"{path}: not imported" for path in sorted(root.iterdir()) if path.name not in imported)


def _in_table(file: Path, rows: int) -> Iterator[str]:
    lines, count = [], 0
    try:
        for group in row_groups(file):
            lines += _in_group(group)
            count += group.size
    except DatasetError as error:
        lines.append(str(error))
    yield from lines
    if count != rows:
        yield f"{file}: {count} rows, but {rows} were imported"
    elif not lines:
        yield f"{file}: no row or image was changed, only other bytes of the table"


def _in_group(group: RowGroup) -> list[str]:
    lines: list[str] = []
    try:
        rows = group.fields()
        for number, row in enumerate(rows, group.first):
            if row_hash(row, row["image_sha256"]) != row["sha256"]:
                lines.append(f"{group.file}: row {number} ({row['id']!r}): its fields were changed")
        for number, (row, images) in enumerate(zip(rows, group.images(), strict=True), group.first):
            hashes = [hashlib.sha256(content or b"").hexdigest() for content in images or ()]
            pairs = zip_longest(hashes, row["image_sha256"])
            changed = [str(position) for position, (now, before) in enumerate(pairs, 1) if now != before]
            if changed:
                lines.append(f"{group.file}: row {number} ({row['id']!r}): image {', '.join(changed)} was changed")
    except DatasetError as error:
        lines.append(str(error))
    return lines
