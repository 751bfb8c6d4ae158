"""The time to score published responses: in strict and official mode, by math-verify alone, and by VLMEvalKit.

    VOLD_BENCH_DATA=DIRECTORY python -m perf.scoring [--rows 25000] [--repeats 3] [--sides strict,official]

The rows are those of the published prediction files of all four benchmarks in a seeded order, which repeats when more
rows are requested. Every run is a process of its own, and the sides alternate. Clocks start after records and
predictions are read and the modules of the scorer are imported. CPU time includes all processes that the scorer starts.
VLMEvalKit evaluates responses as code, so use it only with trusted files such as these published ones.
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

from bench.benchmarks.registry import BENCHMARKS, read_benchmark
from bench.records import Prediction, Problem
from bench.scoring.predictions import read_predictions
from bench.scoring.scorer import Mode, score_predictions
from vold.seeding import generator

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "mathvision": "outputs/*.jsonl",
    "mathvista": "results/output_*.json",
    "mmmu_pro": "outputs/*.jsonl",
    "logicvista": "results/*.csv",
}
PEER_ROWS = {"math-verify": 2_500, "vlmevalkit": 2_500}
"""Rows of slow scorers, which score only the first rows."""


@dataclass(frozen=True, slots=True)
class BenchmarkPredictions:
    """The predictions of one benchmark with its problems."""

    benchmark: str
    problems: tuple[Problem, ...]
    predictions: list[Prediction]


@dataclass(frozen=True, slots=True)
class ScoringRun:
    """The time to score ``rows`` predictions, in seconds on the clock and on processors.

    judged: number of predictions with a verdict.
    """

    side: str
    rows: int
    wall: float
    cpu: float
    judged: int
    right: int


Scorer = Callable[[Sequence[BenchmarkPredictions]], tuple[int, int]]
"""Returns the numbers of predictions with a verdict and of right ones."""


def sample_predictions(data: Path, count: int) -> list[BenchmarkPredictions]:
    """``count`` predictions in a seeded order, by benchmark. Sample numbers distinguish repeated rows."""
    first = {name: next(iter(BENCHMARKS[name].splits)) for name in FILES}
    problems = {name: read_benchmark(name, data / name, first[name], require_images=False).problems for name in FILES}
    pool = [
        (name, prediction)
        for name, pattern in FILES.items()
        for file in sorted((data / name).glob(pattern))
        for prediction in read_predictions(file)
    ]
    order = generator(0, "perf", "scoring").permutation(len(pool))
    drawn: dict[str, list[Prediction]] = {name: [] for name in FILES}
    for number in range(count):
        name, prediction = pool[order[number % len(pool)]]
        drawn[name].append(replace(prediction, sample=number))
    return [
        BenchmarkPredictions(name, problems[name], predictions) for name, predictions in drawn.items() if predictions
    ]


def our_scorer(mode: Mode) -> Scorer:
    def score(parts: Sequence[BenchmarkPredictions]) -> tuple[int, int]:
        scores = [score_predictions(part.benchmark, part.problems, part.predictions, mode) for part in parts]
        return sum(len(score.verdicts) for score in scores), sum(score.correct for score in scores)

    return score


def math_verify_scorer() -> Scorer:
    """math-verify alone: its parser with all three kinds of extraction, and its comparison with label or answer."""
    import logging

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    from vold.answers import reference_labels

    logging.disable(logging.CRITICAL)
    letters = StringExtractionConfig(strings=tuple("ABCDEFGHIJ"))
    kinds = [letters, LatexExtractionConfig(), ExprExtractionConfig()]

    def score(parts: Sequence[BenchmarkPredictions]) -> tuple[int, int]:
        judged = right = 0
        for part in parts:
            by_id = {problem.id: problem for problem in part.problems}
            for prediction in part.predictions:
                problem = by_id[prediction.id]
                labels = sorted(reference_labels(problem.answer, problem.options)) if problem.options else []
                gold = parse(labels[0] if labels else f"${problem.answer}$", kinds)
                answer = parse(prediction.response, kinds)
                judged += bool(answer)
                right += bool(answer) and verify(gold, answer)
        return judged, right

    return score


def vlmevalkit_scorer() -> Scorer:
    """The functions of VLMEvalKit in this process, without its process per comparison and without a judge model."""
    import vlmeval  # noqa: F401

    from bench.bridges.vlmeval import sheet_row
    from bench.bridges.vlmeval_scorer import NoJudge, scorer_of

    def score(parts: Sequence[BenchmarkPredictions]) -> tuple[int, int]:
        judged = right = 0
        for part in parts:
            by_id = {problem.id: problem for problem in part.problems}
            judge = scorer_of(part.benchmark, cot=False)
            for prediction in part.predictions:
                with suppress(NoJudge), redirect_stdout(sys.stderr):
                    right += judge(sheet_row(by_id[prediction.id], prediction))[1] or False
                    judged += 1
        return judged, right

    return score


SIDES: dict[str, Callable[[], Scorer]] = {
    "strict": lambda: our_scorer("strict"),
    "official": lambda: our_scorer("official"),
    "math-verify": math_verify_scorer,
    "vlmevalkit": vlmevalkit_scorer,
}


def processor_seconds() -> float:
    """CPU seconds of this process and of all processes that it has started, including running ones."""
    ticks, pids = 0, [os.getpid()]
    while pids:
        pid = pids.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:  # it has ended, so its parent counts it
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure_scorer(side: str, data: Path, count: int) -> ScoringRun:
    parts = sample_predictions(data, count)
    score = SIDES[side]()
    cpu, wall = processor_seconds(), time.perf_counter()
    judged, right = score(parts)
    wall, cpu = time.perf_counter() - wall, processor_seconds() - cpu
    return ScoringRun(side, count, wall, cpu, judged, right)


def run_scorer(side: str, data: Path, count: int) -> ScoringRun:
    """``measure_scorer`` in a fresh process."""
    command = [sys.executable, "-m", "perf.scoring", "--measure", side, "--rows", str(count)]
    finished = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "VOLD_BENCH_DATA": str(data)}, stdout=subprocess.PIPE, check=True
    )
    return ScoringRun(**json.loads(finished.stdout.splitlines()[-1]))


def scoring_table(runs: Sequence[ScoringRun]) -> str:
    """A Markdown table of medians and ranges, one row per side."""
    lines = ["| side | rows | verdicts | right | wall s | CPU s | CPU ms per row |", "|---|---|---|---|---|---|---|"]
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
    parser.add_argument("--measure", choices=SIDES, help="Run one side in this process and print its result as JSON.")
    options = parser.parse_args(arguments)
    if not (data := os.environ.get("VOLD_BENCH_DATA")):
        parser.error("set VOLD_BENCH_DATA to the directory of the benchmarks")
    if options.measure:
        print(json.dumps(asdict(measure_scorer(options.measure, Path(data), options.rows))))
        return
    sides = options.sides.split(",")
    rows = {side: min(options.rows, PEER_ROWS.get(side, options.rows)) for side in sides}
    print(scoring_table([run_scorer(side, Path(data), rows[side]) for _ in range(options.repeats) for side in sides]))


if __name__ == "__main__":
    main()
