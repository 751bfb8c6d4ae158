"""MathVista: choices answered by their text, integers, decimals with a given precision, and lists."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, Split, unscorable_reason
from bench.benchmarks.repository import image_path
from bench.records import AnswerKind, Problem

_KINDS: dict[str, AnswerKind] = {"integer": "integer", "float": "float", "list": "list", "text": "choice"}
_QUERY = re.compile(r"Hint: [^\n]*\nQuestion: (.*?)(?:\nChoices:\n.*)?", re.DOTALL)


def problem(row: BenchmarkRow) -> Problem:
    options = tuple(str(option) for option in row.options("choices"))
    answer, unit = row.text("answer"), row.optional("unit")
    kind = _KINDS.get(row.text("answer_type"))
    if kind is None or bool(options) != (kind == "choice"):
        raise row.error(
            f"'answer_type' {row.text('answer_type')!r} does not fit its choices; known: {', '.join(_KINDS)}"
        )
    question = row.text("question") + (f" (Unit: {unit})" if unit else "")
    metadata = row.fields.get("metadata")
    return Problem(
        benchmark="mathvista",
        id=row.id,
        question=question if options else question.rstrip(),  # as in the official query, which ends there
        images=(),
        options=options,
        answer=answer,
        kind=kind,
        cluster=row.text("image"),
        category=str(metadata.get("task", "")) if isinstance(metadata, Mapping) else "",
        precision=_precision(row) if kind == "float" else None,
        unscorable=unscorable_reason(answer, options),
    )


def _precision(row: BenchmarkRow) -> int | None:
    """The number of decimals, which is an integer in the repository and a float on the hub."""
    value = row.fields.get("precision")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 12 or value != int(value):
        raise row.error(f"'precision' must be a whole number of decimals, found {value!r}")
    return int(value)


def _repository(row: BenchmarkRow, root: Path) -> tuple[Path, ...]:
    return (image_path(row, root, row.text("image")),)


def _hub(row: BenchmarkRow) -> BenchmarkRow:
    return replace(row, images=(row.image("decoded_image"),))


def _tsv(row: BenchmarkRow, split: str) -> BenchmarkRow:
    """Fill in unit and precision, which the table lacks. Its question may be the complete official query.

    The query has the unit. The precision is that of the reference answer, because all decimals of testmini are written
    with the record's precision. If the text of a choice is absent, its letter (``answer_option``) gives it.
    """
    query = _QUERY.fullmatch(row.optional("question"))
    answer, letter = row.optional("answer"), row.optional("answer_option").strip()
    choices = row.options("choices")
    if not answer and len(letter) == 1 and 0 <= (index := ord(letter) - ord("A")) < len(choices):
        answer = str(choices[index])
    fields = {
        "question": query[1] if query else row.text("question"),
        "answer": answer,
        "choices": choices,
        "answer_type": row.text("answer_type"),
        "precision": len(answer.partition(".")[2]),
        "image": f"images/{row.id}.jpg",
        "metadata": {"task": row.optional("task")},
    }
    return replace(row, fields=fields)


BENCHMARK = Benchmark(
    "mathvista",
    "https://github.com/lupantech/MathVista",
    {
        "testmini": Split(
            ("testmini.json",),
            1000,
            hub_split="testmini",
            tsv="MathVista_MINI.tsv",
            md5="f199b98e178e5a2a20e7048f5dcb0464",
        )
    },
    problem,
    _repository,
    _hub,
    _tsv,
    hub_id="AI4Math/MathVista",
)
