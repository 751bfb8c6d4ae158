"""``vold-bench score``: any prediction file, scored strictly or as published."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.options import (
    BenchmarkOption,
    JudgeKeyOption,
    JudgeModelOption,
    JudgeOption,
    ModeOption,
    RecordsOption,
    SplitOption,
    judge_of,
    judged,
)
from bench.errors import ConfigurationError
from bench.report.numbers import interval, percent
from bench.terminal import printable
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.benchmarks import Dataset
    from bench.scoring.verdicts import Mode, Scores


def score(
    file: Annotated[Path, typer.Argument(help="Predictions: JSONL rows id, response, or a published file.")],
    benchmark: BenchmarkOption,
    records: RecordsOption = None,
    split: SplitOption = None,
    mode: ModeOption = "strict",
    clean_of: Annotated[
        Path | None, typer.Option(help="A result of `data audit`: also score the problems that it found clean.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the verdict on each row to this file.")] = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_key_env: JudgeKeyOption = None,
    judge_agreement: Annotated[int, judged(min=0, help="Also ask it about this many rows that the rules decided.")] = 0,
) -> None:
    """Score predictions, whoever made them. Nothing is guessed in strict mode; official guesses are declared."""
    from bench.benchmarks import find_benchmark
    from bench.benchmarks.audit import clean_ids
    from bench.scoring.judge import judged_scores
    from bench.scoring.predictions import find_records, read_predictions
    from bench.scoring.verdicts import score_predictions

    find_benchmark(benchmark)
    scoring = mode_of(mode)
    asked = judge_of(judge, judge_model, judge_key_env, judge_agreement)
    if asked is not None and scoring == "official":
        raise ConfigurationError("--judge: official scoring is the published procedure alone; use --mode strict")
    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--json {out}: no directory {out.parent}; make it first (mkdir -p {out.parent})")
    predictions = read_predictions(file)
    data = find_records(predictions, file, benchmark, records, split)
    scores = score_predictions(benchmark, data.problems, predictions, scoring)
    told: dict[str, Any] = {}
    if asked is not None:
        scores, told = judged_scores(asked, scores, data.problems, predictions, judge_agreement)
    clean = None if clean_of is None else scores.of(clean_ids(clean_of, benchmark, data.problems))
    if out is not None:
        about = {"split": data.split, "dataset": data.name, "synthetic": data.synthetic, "file": str(file)}
        result = {**scores.to_json(), **about} | ({"judge": told} if told else {})
        if clean is not None:
            part = {"n": len(clean.verdicts), "correct": clean.correct, "accuracy": clean.accuracy}
            result["clean"] = {"audit": str(clean_of), **part}
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    _show(scores, data)
    if told:
        _show_judge(told)
    if clean is not None and clean.verdicts:
        _show(clean, data, f", the problems that {clean_of} found clean")


def mode_of(text: str) -> "Mode":
    """The scoring that ``--mode`` names; raises ConfigurationError."""
    if text == "strict" or text == "official":
        return text
    raise ConfigurationError(f"--mode {text}: unknown; choose strict or official")


def _show_judge(told: dict[str, Any]) -> None:
    from statsmodels.stats.proportion import proportion_confint

    console = Console()
    answered = told["asked"] - len(told["missing"])
    console.print(
        f"judge {told['model']} ({told['prompt']}): asked about {told['asked']} unparsed rows, {answered} answered",
        highlight=False, markup=False,
    )  # fmt: skip
    if told["missing"]:
        why = printable(told["missing"][0]["why"])
        console.print(
            f"{len(told['missing'])} rows are missing, not wrong: {why}; run again to ask again",
            highlight=False, markup=False,
        )  # fmt: skip
    if (found := told.get("agreement")) and found["answered"]:
        bounds: Any = proportion_confint(found["agreed"], found["answered"], method="wilson")
        console.print(
            f"judge and rules agree on {found['agreed']} of {found['answered']} rows that the rules decided: "
            f"{percent(found['agreed'] / found['answered'])} % {interval(*bounds)}",
            highlight=False, markup=False,
        )  # fmt: skip


def _show(scores: "Scores", data: "Dataset", part: str = "") -> None:
    import pandas as pd

    from bench.stats.estimates import accuracy

    clusters = {problem.id: problem.cluster for problem in data.problems}
    rows = pd.DataFrame(
        {"benchmark": scores.benchmark, "id": v.id, "cluster": clusters[v.id], "seed": 0, "correct": v.correct}
        for v in scores.verdicts
    )
    found = accuracy(rows)
    console = Console()
    console.print(
        f"{data.title}, {data.split}{part}, {scores.mode} scoring: {percent(found.value)} % "
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
            f"{len(scores.missing)} of {len(data.problems)} problems have no prediction ({shown}...)", markup=False
        )
