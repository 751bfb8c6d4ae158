"""``vold-bench score``: any prediction file, scored strictly or as published."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from statsmodels.stats.proportion import proportion_confint

from bench.audit import clean_ids
from bench.benchmarks import BENCHMARKS, DatasetError, place_of, read
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.judge import Judge, JudgeConfig, Row
from bench.official import Prediction
from bench.predictions import read_predictions
from bench.records import Problem
from bench.report.numbers import interval, percent
from bench.scoring import Scores, score_predictions
from bench.stats.estimates import accuracy
from vold.files import cache_root, write_whole


def run(
    file: Path, benchmark: str, records: Path | None, mode: str, clean_of: Path | None, out: Path | None,
    judge: Judge | None = None, agreement: int = 0,
) -> None:  # fmt: skip
    """Score ``file`` and print the result; raises ConfigurationError where file, records or mode do not fit.

    judge: asked about what the rules cannot read, and about ``agreement`` rows that they can.
    """
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"--benchmark {benchmark}: unknown; {nearest(benchmark, BENCHMARKS)}")
    if mode not in ("strict", "official"):
        raise ConfigurationError(f"--mode {mode}: unknown; choose strict or official")
    if judge is not None and mode == "official":
        raise ConfigurationError("--judge: official scoring is the published procedure alone; use --mode strict")
    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--json {out}: no directory {out.parent}; make it first (mkdir -p {out.parent})")
    predictions = read_predictions(file)
    problems, split = problems_of(benchmark, records, predictions, file)
    scores = score_predictions(benchmark, problems, predictions, "strict" if mode == "strict" else "official")
    told: dict[str, Any] = {}
    if judge is not None:
        scores, told = _judged(judge, scores, problems, predictions, agreement)
    result = {**scores.to_json(), "split": split, "file": str(file)} | ({"judge": told} if told else {})
    clean = None if clean_of is None else scores.of(clean_ids(clean_of, benchmark, problems))
    if clean is not None:
        part = {"n": len(clean.verdicts), "correct": clean.correct, "accuracy": clean.accuracy}
        result["clean"] = {"audit": str(clean_of), **part}
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    _show(scores, problems, split)
    if told:
        _show_judge(told)
    if clean is not None and clean.verdicts:
        _show(clean, problems, f"{split}, the problems that {clean_of} found clean")


def judge_of(url: str | None, model: str | None, key_variable: str | None) -> Judge | None:
    """The judge that the command line names, if it names one; its answers are kept under VOLD_BENCH_CACHE."""
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise ConfigurationError("--judge and --judge-model go together: the server's URL, and the model's exact name")
    key = os.environ.get(key_variable) if key_variable else None
    if key_variable and not key:
        raise ConfigurationError(f"--judge-key-env {key_variable}: no such environment variable, or it is empty")
    return Judge(JudgeConfig(url=url, model=model), cache_root() / "judge", key)


def _judged(
    judge: Judge, scores: Scores, problems: Sequence[Problem], predictions: Sequence[Prediction], agreement: int
) -> tuple[Scores, dict[str, Any]]:
    """Scores with the judge's verdicts and without the rows that it gave none on, and what the result says of it."""
    known = {problem.id: problem for problem in problems}
    rows = [Row(known[p.id], p.response, v) for p, v in zip(predictions, scores.verdicts, strict=True)]
    judged = judge.judge(rows)
    kept = [judged.verdicts.get(row.place, row.verdict) for row in rows if row.place not in judged.missing]
    missing = [{"id": id, "sample": sample, "why": why} for (id, sample), why in judged.missing.items()]
    told = {**judge.about(), "asked": len(judged.verdicts) + len(missing), "missing": missing}
    if agreement:
        told["agreement"] = asdict(judge.agreement(rows, agreement))
    return replace(scores, verdicts=tuple(kept)), told


def _show_judge(told: dict[str, Any]) -> None:
    console = Console()
    answered = told["asked"] - len(told["missing"])
    console.print(
        f"judge {told['model']} ({told['prompt']}): asked about {told['asked']} unparsed rows, {answered} answered",
        highlight=False, markup=False,
    )  # fmt: skip
    if told["missing"]:
        console.print(
            f"{len(told['missing'])} rows are missing, not wrong: {told['missing'][0]['why']}; run again to ask again",
            highlight=False, markup=False,
        )  # fmt: skip
    if (found := told.get("agreement")) and found["answered"]:
        bounds: Any = proportion_confint(found["agreed"], found["answered"], method="wilson")
        console.print(
            f"judge and rules agree on {found['agreed']} of {found['answered']} rows that the rules decided: "
            f"{percent(found['agreed'] / found['answered'])} % {interval(*bounds)}",
            highlight=False, markup=False,
        )  # fmt: skip


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
