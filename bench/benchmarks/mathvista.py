"""MathVista: choices whose gold is the choice's text, integers, decimals to a stated precision, lists."""

from collections.abc import Mapping
from pathlib import Path

from bench.benchmarks.base import Benchmark, Row, scorable
from bench.records import AnswerKind, Problem

_KINDS: dict[str, AnswerKind] = {"integer": "integer", "float": "float", "list": "list", "text": "choice"}


def problem(row: Row, root: Path) -> Problem:
    options = tuple(str(option) for option in row.options("choices"))
    answer, unit = row.text("answer"), row.optional("unit")
    kind = _KINDS.get(row.text("answer_type"))
    if kind is None or bool(options) != (kind == "choice"):
        raise row.error(
            f"'answer_type' {row.text('answer_type')!r} does not fit its choices; known: {', '.join(_KINDS)}"
        )
    image = row.text("image")
    metadata = row.fields.get("metadata")
    return Problem(
        benchmark="mathvista",
        id=row.id,
        question=row.text("question") + (f" (Unit: {unit})" if unit else ""),
        images=(row.picture(root, image),),
        options=options,
        answer=answer,
        kind=kind,
        cluster=image,
        category=str(metadata.get("task", "")) if isinstance(metadata, Mapping) else "",
        precision=_precision(row) if kind == "float" else None,
        unscorable=scorable(answer, options),
    )


def _precision(row: Row) -> int | None:
    """Decimals; an integer in the repository and a float on the hub."""
    value = row.fields.get("precision")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 12 or value != int(value):
        raise row.error(f"'precision' must be a whole number of decimals, found {value!r}")
    return int(value)


BENCHMARK = Benchmark("mathvista", {"testmini": ("testmini.json",)}, problem)
