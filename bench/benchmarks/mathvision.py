"""MathVision (MATH-V): five options or a free answer. Each record has one image, whatever its marks say."""

import re
from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, Split, unscorable_reason
from bench.benchmarks.repository import image_path
from bench.records import AnswerKind, Problem


def problem(row: BenchmarkRow) -> Problem:
    options = tuple(str(option) for option in row.options("options"))
    answer = row.text("answer")
    return Problem(
        benchmark="mathvision",
        id=row.id,
        question=row.text("question"),
        images=(),
        options=options,
        answer=answer,
        kind=_kind(answer, options),
        cluster=row.id,
        category=row.optional("subject"),
        unscorable=unscorable_reason(answer, options),
    )


def _kind(answer: str, options: tuple[str, ...]) -> AnswerKind:
    answer = answer.strip()
    if options or re.fullmatch("[A-E]", answer):  # records 59 and 434 have letters as answers and no options
        return "choice"
    if re.fullmatch(r"-?\d+", answer):
        return "integer"
    return "float" if re.fullmatch(r"-?\d*\.\d+", answer) else "free"


def _repository(row: BenchmarkRow, root: Path) -> tuple[Path, ...]:
    return (image_path(row, root, row.text("image")),)


def _hub(row: BenchmarkRow) -> BenchmarkRow:
    return replace(row, images=(row.image("decoded_image"),))


def _tsv(row: BenchmarkRow, split: str) -> BenchmarkRow:
    fields = row.fields
    return replace(row, fields={**fields, "options": fields.get("choices"), "subject": fields.get("category")})


BENCHMARK = Benchmark(
    "mathvision",
    "https://github.com/mathllm/MATH-V",
    {
        "test": Split(("test.jsonl",), 3040, tsv="MathVision.tsv", md5="93f6de14f7916e598aa1b7165589831e"),
        "testmini": Split(
            ("testmini.jsonl",),
            304,
            hub_split="testmini",
            tsv="MathVision_MINI.tsv",
            md5="060fe4fa5d868987ce179307bd5f8a33",
        ),
        "edge": Split(("edge.jsonl",)),
    },
    problem,
    _repository,
    _hub,
    _tsv,
    hub_id="MathLLMs/MathVision",
)
