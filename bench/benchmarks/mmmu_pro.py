"""MMMU-Pro: ten options as text with pictures between, or the whole question as one picture (``vision``)."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.benchmarks.base import Benchmark, Row, jsonl_rows, scorable
from bench.records import Problem

_MARK = re.compile(r"<image (\d+)>")
_STANDARD = "records_standard10_1730.jsonl"
_PAGES = "vision_pages/index.jsonl"


def rows(file: Path) -> Iterator[Row]:
    """Rows of either setting; an index of pages borrows options and subject from the standard records."""
    if not file.as_posix().endswith(_PAGES):
        yield from jsonl_rows(file)
        return
    standard = file.parents[1] / _STANDARD
    known = {row.id: row for row in jsonl_rows(standard)} if standard.is_file() else {}
    for row in jsonl_rows(file):
        if row.id not in known:
            raise row.error("has no options", f"put {_STANDARD} beside {file.parent.name}")
        record = known[row.id].fields
        page = {name: record[name] for name in ("options", "subject") if name in record}
        yield Row(file, row.id, {**page, **row.fields, "image": f"{file.parent.name}/{row.text('page')}"})


def problem(row: Row, root: Path) -> Problem:
    raw = row.options("options")
    options = tuple(str(option) for option in raw)
    nested = not all(isinstance(option, str) for option in raw)
    question, answer = row.optional("question"), row.text("answer").strip()
    return Problem(
        benchmark="mmmu_pro",
        id=row.id,
        question=question,
        images=_pictures(row, root, question, options),
        options=options,
        answer=answer,
        kind="choice",
        cluster=row.id,
        category=row.optional("subject"),
        unscorable="its options are nested lists" if nested else scorable(answer, options),
    )


def _pictures(row: Row, root: Path, question: str, options: tuple[str, ...]) -> tuple[Path, ...]:
    """Picture k stands at position k, whatever the order of the marks in the text."""
    if "image" in row.fields:
        return (row.picture(root, row.text("image")),)
    count = max((int(number) for number in _MARK.findall(" ".join((question, *options)))), default=1)
    if count > 7:
        raise row.error(f"mentions <image {count}>, but a record has at most 7 pictures")
    return tuple(row.picture(root, f"images/{row.id}_{number}.png") for number in range(1, count + 1))


BENCHMARK = Benchmark("mmmu_pro", {"standard10": (_STANDARD,), "vision": ("records.jsonl", _PAGES)}, problem, rows)
