"""LogicVista: letters for answers, one or several; the options stand in the picture or in the question."""

from pathlib import Path

from bench.benchmarks.base import Benchmark, Row, scorable
from bench.records import Problem


def problem(row: Row, root: Path) -> Problem:
    question, answer = row.text("question"), row.text("answer").strip()
    skill = row.fields.get("skill")
    return Problem(
        benchmark="logicvista",
        id=row.id,
        question=question,
        images=(row.picture(root, f"images/{row.text('imagename')}"),),
        options=(),
        answer=answer,
        kind="choices" if "," in answer else "choice",
        cluster=question.strip() or row.id,
        category=", ".join(map(str, skill)) if isinstance(skill, list) else "",
        unscorable=scorable(answer, ()),
    )


BENCHMARK = Benchmark("logicvista", {"test": ("dataset.json",)}, problem)
