"""What differs between an imported directory and what was imported: by file, row and image."""

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from bench.benchmarks.base import DatasetError
from bench.benchmarks.imported import MANIFEST, RowGroup, file_hashes, read_manifest, row_groups, row_hash


def differences(root: Path) -> Iterator[str]:
    """A line for each file, row and image that is not as imported; none where all is."""
    try:
        found = read_manifest(root)
    except DatasetError as error:
        yield str(error)
        return
    for split, entry in found["splits"].items():
        file = root / f"{split}.parquet"
        if not file.is_file():
            yield f"{file}: missing"
        elif file_hashes(file)["sha256"] != entry["sha256"]:
            yield f"{file}: the file was changed"
            yield from _in_table(file, entry["rows"])
    known = {MANIFEST, *(f"{split}.parquet" for split in found["splits"])}
    yield from (f"{path}: not imported" for path in sorted(root.iterdir()) if path.name not in known)


def _in_table(file: Path, rows: int) -> Iterator[str]:
    found, count = [], 0
    try:
        for group in row_groups(file):
            found += _in_group(group)
            count += group.size
    except DatasetError as error:
        found.append(str(error))
    yield from found
    if count != rows:
        yield f"{file}: {count} rows, imported were {rows}"
    elif not found:
        yield f"{file}: no row and no image differs; the change lies in the table's frame"


def _in_group(group: RowGroup) -> list[str]:
    found: list[str] = []
    try:
        rows = group.fields()
        for number, row in enumerate(rows, group.first):
            if row_hash(row, row["image_sha256"]) != row["sha256"]:
                found.append(f"{group.file}: row {number} ({row['id']!r}): its fields were changed")
        for number, (row, images) in enumerate(zip(rows, group.images(), strict=True), group.first):
            hashes = [hashlib.sha256(content or b"").hexdigest() for content in images or ()]
            changed = [place for place, (a, b) in enumerate(zip_longest(hashes, row["image_sha256"]), 1) if a != b]
            if changed:
                shown = ", ".join(map(str, changed))
                found.append(f"{group.file}: row {number} ({row['id']!r}): image {shown} was changed")
    except DatasetError as error:
        found.append(str(error))
    return found
