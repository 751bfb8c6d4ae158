"""LogicVista: answers are one or several letters; the options are in the image or in the question."""

import re
from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, Split, unscorable_reason
from bench.benchmarks.repository import image_path
from bench.records import Problem


def problem(row: BenchmarkRow) -> Problem:
    question, answer = row.text("question"), row.text("answer").strip()
    skill = row.fields.get("skill")
    return Problem(
        benchmark="logicvista",
        id=row.id,
        question=question,
        images=(),
        options=(),
        answer=answer,
        kind="choices" if "," in answer else "choice",
        cluster=question.strip() or row.id,
        category=", ".join(map(str, skill)) if isinstance(skill, list) else "",
        unscorable=unscorable_reason(answer, ()),
    )


def _repository(row: BenchmarkRow, root: Path) -> tuple[Path, ...]:
    return (image_path(row, root, f"images/{row.text('imagename')}"),)


def _hub(row: BenchmarkRow) -> BenchmarkRow:
    """There is no official table. Copies have the repository's fields, and the image in ``image``."""
    return replace(row, id=_key(row.id), fields=_fields(row), images=(row.image("image"),))


def _tsv(row: BenchmarkRow, split: str) -> BenchmarkRow:
    return replace(row, id=_key(row.id), fields=_fields(row))


def _fields(row: BenchmarkRow) -> dict[str, object]:
    """The question and answer of v1_382 are empty, and therefore absent in tables. A skill may be a bare word."""
    skill = row.fields.get("skill")
    if isinstance(skill, str):
        skill = row.options("skill") if skill.startswith("[") else [skill]
    return {"question": row.optional("question"), "answer": row.optional("answer"), "skill": skill}


def _key(id: str) -> str:
    """``v1_12`` for 12 and ``v1_12.png``, because tables number the records like the repository, from 0."""
    id = re.sub(r"\.(png|jpe?g)$", "", id)
    return f"v1_{id}" if id.isdigit() else id


BENCHMARK = Benchmark(
    "logicvista",
    "https://github.com/Yijia-Xiao/LogicVista",
    {"test": Split(("dataset.json",), 448, tsv="LogicVista.tsv", md5="41c5d33adf33765c399e0e6ae588c061")},
    problem,
    _repository,
    _hub,
    _tsv,
)
