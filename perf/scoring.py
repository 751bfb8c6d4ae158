"""Published responses scored: strict and official mode, and beside them math-verify alone and VLMEvalKit's scorer.

    VOLD_BENCH_DATA=DIRECTORY python -m perf.scoring [--rows 25000] [--repeats 3] [--sides strict,official]

The rows are those of the published prediction files of all four benchmarks in a seeded order, begun again where more
are wanted. Every run is a process of its own, and the sides alternate. Clocks start when records and predictions are
read and the scorer's own modules are imported; processes that it starts are within them. CPU time is that of all
processes. VLMEvalKit evaluates responses as code: these published files are trusted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from bench.benchmarks import BENCHMARKS, read_benchmark
from bench.records import Prediction, Problem
from bench.scoring.predictions import read_predictions
from bench.scoring.verdicts import Mode, score_predictions
from vold.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "mathvision": "outputs/*.jsonl",
    "mathvista": "results/output_*.json",
    "mmmu_pro": "outputs/*.jsonl",
    "logicvista": "results/*.csv",
}
PEER_ROWS = {"math-verify": 2_500, "vlmevalkit": 2_500}
"""They take long for each row, so that they get the first of the rows."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Predictions of one benchmark with its problems."""

    benchmark: str
    problems: tuple[Problem, ...]
    predictions: list[Prediction]


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds on the clock and of processors over ``rows``; ``judged``: how many of them got a verdict."""

    side: str
    rows: int
    wall: float
    cpu: float
    judged: int
    right: int


Scorer = Callable[[Sequence[Rows]], tuple[int, int]]
"""(judged, right) of all rows."""


def sample(data: Path, count: int) -> list[Rows]:
    """``count`` predictions in a seeded order, by benchmark; sample numbers keep repeats apart."""
    first = {name: next(iter(BENCHMARKS[name].splits)) for name in FILES}
    problems = {name: read_benchmark(name, data / name, first[name], require_images=False).problems for name in FILES}
    pool = [
        (name, prediction)
        for name, pattern in FILES.items()
        for file in sorted((data / name).glob(pattern))
        for prediction in read_predictions(file)
    ]
    order = generator(0, "perf", "scoring").permutation(len(pool))
    found: dict[str, list[Prediction]] = {name: [] for name in FILES}
    for number in range(count):
        name, prediction = pool[order[number % len(pool)]]
        found[name].append(replace(prediction, sample=number))
    return [Rows(name, problems[name], predictions) for name, predictions in found.items() if predictions]


def ours(mode: Mode) -> Scorer:
    def score(parts: Sequence[Rows]) -> tuple[int, int]:
        scores = [score_predictions(part.benchmark, part.problems, part.predictions, mode) for part in parts]
        return sum(len(score.verdicts) for score in scores), sum(score.correct for score in scores)

    return score


def math_verify() -> Scorer:
    """Its parser with all three kinds of extraction on every response, its comparison with the label or the gold."""
    import logging

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    from vold.answers import reference_labels

    logging.disable(logging.CRITICAL)
    letters = StringExtractionConfig(strings=tuple("ABCDEFGHIJ"))
    kinds = [letters, LatexExtractionConfig(), ExprExtractionConfig()]

    def score(parts: Sequence[Rows]) -> tuple[int, int]:
        judged = right = 0
        for part in parts:
            known = {problem.id: problem for problem in part.problems}
            for prediction in part.predictions:
                problem = known[prediction.id]
                labels = sorted(reference_labels(problem.answer, problem.options)) if problem.options else []
                gold = parse(labels[0] if labels else f"${problem.answer}$", kinds)
                answer = parse(prediction.response, kinds)
                judged += bool(answer)
                right += bool(answer) and verify(gold, answer)
        return judged, right

    return score


def vlmevalkit() -> Scorer:
    """Its functions in this process, without the process that it starts for each comparison; no judge model."""
    import vlmeval  # noqa: F401

    from bench.bridges.vlmeval import sheet_row
    from bench.bridges.vlmeval_scorer import NoJudge, scorer_of

    def score(parts: Sequence[Rows]) -> tuple[int, int]:
        judged = right = 0
        for part in parts:
            known = {problem.id: problem for problem in part.problems}
            judge = scorer_of(part.benchmark, cot=False)
            for prediction in part.predictions:
                with suppress(NoJudge), redirect_stdout(sys.stderr):
                    right += judge(sheet_row(known[prediction.id], prediction))[1] or False
                    judged += 1
        return judged, right

    return score


SIDES: dict[str, Callable[[], Scorer]] = {
    "strict": lambda: ours("strict"),
    "official": lambda: ours("official"),
    "math-verify": math_verify,
    "vlmevalkit": vlmevalkit,
}


def processor_seconds() -> float:
    """CPU time of this process and of all that it has started, those that still run included."""
    ticks, left = 0, [os.getpid()]
    while left:
        pid = left.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            left += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:  # it ended meanwhile, and its parent counts it
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(side: str, data: Path, count: int) -> Measured:
    parts = sample(data, count)
    score = SIDES[side]()
    cpu, wall = processor_seconds(), time.perf_counter()
    judged, right = score(parts)
    wall, cpu = time.perf_counter() - wall, processor_seconds() - cpu
    return Measured(side, count, wall, cpu, judged, right)


def run(side: str, data: Path, count: int) -> Measured:
    """``measure`` in a fresh process."""
    command = [sys.executable, "-m", "perf.scoring", "--measure", side, "--rows", str(count)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "VOLD_BENCH_DATA": str(data)}, stdout=subprocess.PIPE, check=True
    )
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(runs: Sequence[Measured]) -> str:
    """Medians with their ranges, a row a side."""
    lines = ["| side | rows | verdicts | right | wall s | CPU s | CPU ms a row |", "|---|---|---|---|---|---|---|"]
    for side in dict.fromkeys(run.side for run in runs):
        own = [run for run in runs if run.side == side]
        walls, cpus = sorted(run.wall for run in own), sorted(run.cpu for run in own)
        spread = [f"{median(values):.1f} ({values[0]:.1f} to {values[-1]:.1f})" for values in (walls, cpus)]
        first = own[0]
        each = 1000 * median(cpus) / first.rows
        lines.append(
            f"| {side} | {first.rows:,} | {first.judged:,} | {first.right:,} | {' | '.join(spread)} | {each:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--measure", choices=SIDES, help="one run in this process, printed as JSON")
    asked = parser.parse_args(arguments)
    if not (data := os.environ.get("VOLD_BENCH_DATA")):
        parser.error("set VOLD_BENCH_DATA to the directory of the benchmarks")
    if asked.measure:
        print(json.dumps(asdict(measure(asked.measure, Path(data), asked.rows))))
        return
    sides = asked.sides.split(",")
    rows = {side: min(asked.rows, PEER_ROWS.get(side, asked.rows)) for side in sides}
    print(table([run(side, Path(data), rows[side]) for _ in range(asked.repeats) for side in sides]))


if __name__ == "__main__":
    main()
