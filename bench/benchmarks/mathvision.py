"""MathVision (MATH-V): five options or a free answer; one picture a record, whatever its marks say."""

import re
from pathlib import Path

from bench.benchmarks.base import Benchmark, Row, scorable
from bench.records import AnswerKind, Problem


def problem(row: Row, root: Path) -> Problem:
    options = tuple(str(option) for option in row.options("options"))
    answer = row.text("answer")
    return Problem(
        benchmark="mathvision",
        id=row.id,
        question=row.text("question"),
        images=(row.picture(root, row.text("image")),),
        options=options,
        answer=answer,
        kind=_kind(answer, options),
        cluster=row.id,
        category=row.optional("subject"),
        unscorable=scorable(answer, options),
    )


def _kind(answer: str, options: tuple[str, ...]) -> AnswerKind:
    answer = answer.strip()
    if options or re.fullmatch("[A-E]", answer):  # 59 and 434 have letters for golds and no options
        return "choice"
    if re.fullmatch(r"-?\d+", answer):
        return "integer"
    return "float" if re.fullmatch(r"-?\d*\.\d+", answer) else "free"


BENCHMARK = Benchmark(
    "mathvision", {"test": ("test.jsonl",), "testmini": ("testmini.jsonl",), "edge": ("edge.jsonl",)}, problem
)
