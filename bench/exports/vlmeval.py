"""The prediction format of VLMEvalKit: a workbook per benchmark with a row per problem.

Every cell with text is typed as text, so that it is never a formula. Characters that a workbook cannot hold are
replaced and long texts are cut; the sheet ``about`` counts both.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.benchmarks.registry import BENCHMARKS
from bench.exports.evaluation import BenchmarkExport, ExportedEvaluation, Sample
from bench.records import Problem

if TYPE_CHECKING:
    from openpyxl.cell import Cell

LONGEST_CELL = 32_767
# Characters that XML 1.0 does not allow.
_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ANSWER_TYPES = {"choice": "text", "integer": "integer", "float": "float", "list": "list"}


def write(evaluation: ExportedEvaluation, to: Path) -> list[Path]:
    """``MODEL/MODEL_DATASET.xlsx``, with the sheets ``sample 0`` to ``sample k-1`` for k samples."""
    folder = to / evaluation.file_name
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(part, folder / f"{evaluation.file_name}_{_dataset(part)}.xlsx") for part in evaluation.parts()]


def _dataset(part: BenchmarkExport) -> str:
    """VLMEvalKit's name of the split, if it has one and the problems are not synthetic."""
    benchmark = BENCHMARKS.get(part.benchmark)
    split = benchmark.splits.get(part.summary.split) if benchmark else None
    return split.tsv.removesuffix(".tsv") if split and split.tsv and not part.synthetic else part.file_name


def _write(part: BenchmarkExport, path: Path) -> Path:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    cells = _Cells()
    columns = [*_columns(part), "prediction", "state", "correct", "extracted", "method", "finish_reason", "tokens"]
    for number in range(part.evaluation.k):
        sheet = book.create_sheet(f"sample {number}")
        cells.sheet = sheet
        sheet.append(cells.row(columns))
        for sample in part.samples:
            if sample.sample == number:
                row = _row(part.benchmark, sample)
                sheet.append(cells.row(row.get(column) for column in columns))
    about = cells.sheet = book.create_sheet("about")
    for name, value in {**part.about, **cells.changed}.items():
        about.append(cells.row((name, value if isinstance(value, str | int | float | bool) else json.dumps(value))))
    scratch = path.with_name(f".{path.name}")
    book.save(scratch)
    scratch.replace(path)
    return path


class _Cells:
    """Turns values into cells; ``changed`` counts the texts that did not fit unchanged."""

    def __init__(self) -> None:
        self.sheet: Any = None
        self.counts: Counter[str] = Counter()

    @property
    def changed(self) -> dict[str, int]:
        return {name: self.counts[name] for name in ("characters_replaced", "cells_cut")}

    def row(self, values: Iterable[object]) -> "list[Cell]":
        return list(self._cells(values))

    def _cells(self, values: Iterable[Any]) -> "Iterator[Cell]":
        from openpyxl.cell import WriteOnlyCell

        for value in values:
            cell = WriteOnlyCell(self.sheet, self._fitting(value) if isinstance(value, str) else value)
            if isinstance(value, str):
                cell.data_type = "s"  # openpyxl would treat a text that begins with = as a formula
            yield cell

    def _fitting(self, text: str) -> str:
        text, replaced = _REFUSED.subn(_REPLACEMENT, text)
        self.counts["characters_replaced"] += replaced
        self.counts["cells_cut"] += len(text) > LONGEST_CELL
        return text[:LONGEST_CELL]


def _columns(part: BenchmarkExport) -> list[str]:
    """The benchmark's columns in VLMEvalKit's table, without the images."""
    if part.benchmark == "mmmu_pro":
        most = max((len(problem.options) for problem in part.problems.values()), default=0)
        return ["index", "question", *string.ascii_uppercase[:most], "answer", "category"]
    if part.benchmark == "mathvista":
        return ["index", "question", "choices", "answer", "answer_option", "question_type", "answer_type", "task"]
    if part.benchmark == "mathvision":
        return ["index", "question", "choices", "answer", "category"]
    choices = ["choices"] if any(problem.options for problem in part.problems.values()) else []
    return ["index", "question", *choices, "answer", "skill"]


def _row(benchmark: str, sample: Sample) -> dict[str, object]:
    problem = sample.problem
    return {
        "index": problem.id,
        "question": problem.question,
        **dict(zip(string.ascii_uppercase, problem.options, strict=False)),
        "choices": repr(list(problem.options)),
        "answer": problem.answer,
        "answer_option": _label(problem),
        "question_type": "multi_choice" if problem.options else "free_form",
        "answer_type": _ANSWER_TYPES.get(problem.kind, problem.kind),
        "category": problem.category,
        "task": problem.category,
        "skill": problem.category,
        "prediction": sample.response,
        "state": sample.state,
        "correct": sample.correct,
        "extracted": sample.extracted,
        "method": sample.method,
        "finish_reason": sample.finish_reason,
        "tokens": sample.tokens,
    }


def _label(problem: Problem) -> str:
    return string.ascii_uppercase[problem.options.index(problem.answer)] if problem.answer in problem.options else ""
