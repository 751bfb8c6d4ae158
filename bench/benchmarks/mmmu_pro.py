"""MMMU-Pro: ten or four options as text and images, or the complete question as one image (``vision``)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, Split, unscorable_reason
from bench.benchmarks.repository import image_path, jsonl_rows
from bench.records import Problem

_MOST = 7
"""The largest number of images in a record."""
_MARK = re.compile(r"<image (\d+)>")
_STANDARD = "records_standard10_1730.jsonl"
_PAGES = "vision_pages/index.jsonl"


def rows(file: Path) -> Iterator[BenchmarkRow]:
    """Rows of either setting. An index of pages gets its options and subjects from the standard records."""
    if not file.as_posix().endswith(_PAGES):
        yield from jsonl_rows(file)
        return
    standard = file.parents[1] / _STANDARD
    standard_rows = {row.id: row for row in jsonl_rows(standard)} if standard.is_file() else {}
    for row in jsonl_rows(file):
        if row.id not in standard_rows:
            raise row.error("has no options", f"put {_STANDARD} next to {file.parent.name}")
        record = standard_rows[row.id].fields
        page = {name: record[name] for name in ("options", "subject") if name in record}
        yield BenchmarkRow(file, row.id, {**page, **row.fields, "image": f"{file.parent.name}/{row.text('page')}"})


def problem(row: BenchmarkRow) -> Problem:
    options, answer = _options(row), row.text("answer").strip()
    return Problem(
        benchmark="mmmu_pro",
        id=row.id,
        question=row.optional("question"),
        images=(),
        options=options,
        answer=answer,
        kind="choice",
        cluster=row.id,
        category=row.optional("subject"),
        unscorable=unscorable_reason(answer, options),
    )


def _options(row: BenchmarkRow) -> tuple[str, ...]:
    """A list within the list is a single option (validation_Accounting_29)."""
    return tuple(map(str, row.options("options")))


def _repository(row: BenchmarkRow, root: Path) -> tuple[Path, ...]:
    """Image k is at position k, whatever the order of the marks in the text."""
    if "image" in row.fields:
        return (image_path(row, root, row.text("image")),)
    marks = _MARK.findall(" ".join((row.optional("question"), *_options(row))))
    count = max(map(int, marks), default=1)
    if count > _MOST:
        raise row.error(f"mentions <image {count}>, but a record has at most {_MOST} images")
    return tuple(image_path(row, root, f"images/{row.id}_{number}.png") for number in range(1, count + 1))


def _hub(row: BenchmarkRow) -> BenchmarkRow:
    """Images are ``image_1`` to ``image_7``, empty after the last. The page of ``vision`` is ``image``."""
    if "image" in row.fields:
        return replace(row, images=(row.image("image"),))
    names = [f"image_{number}" for number in range(1, _MOST + 1)]
    count = max((number for number, name in enumerate(names, 1) if row.fields.get(name) is not None), default=1)
    return replace(row, images=tuple(map(row.image, names[:count])))


def _tsv(row: BenchmarkRow, split: str) -> BenchmarkRow:
    """Options are in columns named by their letters. An empty option before the last one keeps its letter."""
    options = [row.optional(letter) for letter in sorted(row.fields) if re.fullmatch("[A-Z]", letter)]
    while options and not options[-1]:
        options.pop()
    fields = {**row.fields, "options": options, "subject": row.fields.get("category")}
    if split == "vision":
        fields["question"] = ""
    return replace(row, fields=fields)


BENCHMARK = Benchmark(
    "mmmu_pro",
    "https://github.com/MMMU-Benchmark/MMMU",
    {
        "standard10": Split(
            (_STANDARD,),
            1730,
            config="standard (10 options)",
            tsv="MMMU_Pro_10c.tsv",
            md5="22cee868fe6b680d14b99bfff6db8172",
            options=10,
        ),
        "vision": Split(
            ("records.jsonl", _PAGES),
            1730,
            config="vision",
            tsv="MMMU_Pro_V.tsv",
            md5="d01441a87b3dbe721b5a04652ae38009",
        ),
        "standard4": Split(("records_standard4_1730.jsonl",), 1730, config="standard (4 options)", options=4),
    },
    problem,
    _repository,
    _hub,
    _tsv,
    rows,
    hub_id="MMMU/MMMU_Pro",
)
