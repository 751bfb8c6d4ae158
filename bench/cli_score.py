"""``vold-bench score``: any prediction file, scored strictly or as published."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.audit import clean_ids
from bench.benchmarks import BENCHMARKS, DatasetError, place_of, read
from bench.errors import ConfigurationError
from bench.matrix.source import nearest
from bench.official import Prediction
from bench.predictions import read_predictions
from bench.records import Problem
from bench.report.numbers import interval, percent
from bench.scoring import Scores, score_predictions
from bench.stats.estimates import accuracy
from vold.files import write_whole


def run(file: Path, benchmark: str, records: Path | None, mode: str, clean_of: Path | None, out: Path | None) -> None:
    """Score ``file`` and print the result; raises ConfigurationError where file, records or mode do not fit."""
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"--benchmark {benchmark}: unknown; {nearest(benchmark, BENCHMARKS)}")
    if mode not in ("strict", "official"):
        raise ConfigurationError(f"--mode {mode}: unknown; choose strict or official")
    predictions = read_predictions(file)
    problems, split = problems_of(benchmark, records, predictions, file)
    scores = score_predictions(benchmark, problems, predictions, "strict" if mode == "strict" else "official")
    result = {**scores.to_json(), "split": split, "file": str(file)}
    clean = None if clean_of is None else scores.of(clean_ids(clean_of, benchmark, problems))
    if clean is not None:
        part = {"n": len(clean.verdicts), "correct": clean.correct, "accuracy": clean.accuracy}
        result["clean"] = {"audit": str(clean_of), **part}
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    _show(scores, problems, split)
    if clean is not None and clean.verdicts:
        _show(clean, problems, f"{split}, the problems that {clean_of} found clean")


def problems_of(
    benchmark: str, records: Path | None, predictions: list[Prediction], file: Path
) -> tuple[tuple[Problem, ...], str]:
    """The problems of the first split that has all predicted ids, and its name."""
    root = place_of(benchmark, records)
    asked = {prediction.id for prediction in predictions}
    refusal: DatasetError | None = None
    unknown: dict[str, list[str]] = {}
    for split in [None] if root.is_file() else BENCHMARKS[benchmark].splits:
        try:
            found = read(benchmark, root, split, require_pictures=False)
        except DatasetError as error:
            refusal = error
            continue
        strange = sorted(asked - {problem.id for problem in found.problems})
        if not strange:
            return found.problems, found.split
        unknown[found.split] = strange
    if not unknown:
        assert refusal is not None
        raise refusal
    split, strange = min(unknown.items(), key=lambda item: len(item[1]))
    raise ConfigurationError(
        f"{file}: {len(strange)} of {len(asked)} ids are no records of {benchmark} under {root} "
        f"(split {split}; first {strange[0]!r}); name the records that were asked with --records"
    )


def _show(scores: Scores, problems: Sequence[Problem], split: str) -> None:
    clusters = {problem.id: problem.cluster for problem in problems}
    rows = pd.DataFrame(
        {"benchmark": scores.benchmark, "id": v.id, "cluster": clusters[v.id], "seed": 0, "correct": v.correct}
        for v in scores.verdicts
    )
    found = accuracy(rows)
    console = Console()
    console.print(
        f"{scores.benchmark} ({split}), {scores.mode} scoring: {percent(found.value)} % "
        f"{interval(found.low, found.high)}, {scores.correct} of {len(scores.verdicts)}",
        highlight=False,
        markup=False,
    )
    table = Table("state", "n")
    for state, count in scores.states.items():
        if count or state in ("right", "wrong"):
            table.add_row(state, str(count))
    console.print(table)
    if scores.guessed:
        console.print(f"{scores.guessed} letters were drawn at random, as the published procedure does (seeded here)")
    if scores.missing:
        shown = ", ".join(scores.missing[:3])
        console.print(
            f"{len(scores.missing)} of {len(problems)} problems have no prediction ({shown}...)", markup=False
        )
