"""``vold-bench score``: score a prediction file strictly, or by a benchmark's published procedure."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.cli.json_output import print_json
from bench.cli.options import (
    BenchmarkOption,
    DataOption,
    Json,
    JudgeKeyOption,
    JudgeModelOption,
    JudgeOption,
    ModeOption,
    SplitOption,
    judge_from,
    judge_option,
)
from bench.errors import ConfigurationError
from bench.report.numbers import interval, percent
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.benchmarks.base import Dataset
    from bench.scoring.scorer import Mode, Scores


def score(
    file: Annotated[
        Path, typer.Argument(help="Predictions: JSONL rows with id and response, or a file that a benchmark published.")
    ],
    benchmark: BenchmarkOption,
    data: DataOption = None,
    split: SplitOption = None,
    mode: ModeOption = "strict",
    clean_of: Annotated[
        Path | None, typer.Option(help="Result of `data audit`; its clean problems are also scored on their own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file that receives the verdict on each row.")] = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_key_env: JudgeKeyOption = None,
    judge_agreement: Annotated[
        int, judge_option(min=0, help="Rows decided by the rules that the judge reads as well, to measure agreement.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Score an existing prediction file, strictly or by the benchmark's published procedure."""
    from bench.benchmark_data import benchmark_path
    from bench.benchmarks.audit import clean_ids
    from bench.benchmarks.registry import find_benchmark
    from bench.scoring.judge import judged_scores
    from bench.scoring.predictions import find_records, read_predictions
    from bench.scoring.scorer import score_predictions

    find_benchmark(benchmark)
    scoring = mode_of(mode)
    reader = judge_from(judge, judge_model, judge_key_env, judge_agreement)
    if reader is not None and scoring == "official":
        raise ConfigurationError("--judge: official scoring has no judge; use --mode strict")
    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: no directory {out.parent}; make it first (mkdir -p {out.parent})")
    predictions = read_predictions(file)
    records = find_records(predictions, file, benchmark, benchmark_path(benchmark, data or ()), split)
    scores = score_predictions(benchmark, records.problems, predictions, scoring)
    judge_report: dict[str, object] = {}
    if reader is not None:
        scores, judge_report = judged_scores(reader, scores, records.problems, predictions, judge_agreement)
    clean = None if clean_of is None else scores.subset(clean_ids(clean_of, benchmark, records.problems))
    source = {"split": records.split, "dataset": records.name, "synthetic": records.synthetic, "file": str(file)}
    result = {**scores.to_json(), **source} | ({"judge": judge_report} if judge_report else {})
    if clean is not None:
        part = {"n": len(clean.verdicts), "correct": clean.correct, "accuracy": clean.accuracy}
        result["clean"] = {"audit": str(clean_of), **part}
    if out is not None:
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    if as_json:
        return print_json(result)
    _show(scores, records)
    if judge_report:
        _show_judge(judge_report)
    if clean is not None and clean.verdicts:
        _show(clean, records, f", the clean problems of {clean_of}")


def mode_of(text: str) -> "Mode":
    """The scoring that ``--mode`` names; raises ConfigurationError."""
    if text == "strict" or text == "official":
        return text
    raise ConfigurationError(f"--mode {text}: unknown; choose strict or official")


def _show_judge(report: dict[str, Any]) -> None:
    from statsmodels.stats.proportion import proportion_confint

    from bench.display.summary import show_judge_report

    console = Console()
    show_judge_report(report, console)
    if (agreement := report.get("agreement")) and agreement["answered"]:
        bounds: Any = proportion_confint(agreement["agreed"], agreement["answered"], method="wilson")
        console.print(
            f"judge and rules agree on {agreement['agreed']} of {agreement['answered']} rows that the rules decided: "
            f"{percent(agreement['agreed'] / agreement['answered'])} % {interval(*bounds)}",
            highlight=False, markup=False,
        )  # fmt: skip


def _show(scores: "Scores", data: "Dataset", part: str = "") -> None:
    import pandas as pd

    from bench.stats.cells import one_run
    from bench.stats.estimates import accuracy

    clusters = {problem.id: problem.cluster for problem in data.problems}
    rows = pd.DataFrame(
        {"benchmark": scores.benchmark, "id": v.id, "cluster": clusters[v.id], "correct": v.correct}
        for v in scores.verdicts
    )
    estimate = accuracy(one_run(rows))
    console = Console()
    console.print(
        f"{data.title}, {data.split}{part}, {scores.mode} scoring: {percent(estimate.value)} % "
        f"{interval(estimate.low, estimate.high)}, {scores.correct} of {len(scores.verdicts)}",
        highlight=False,
        markup=False,
    )
    table = Table("state", "n")
    for state, count in scores.states.items():
        if count or state in ("right", "wrong"):
            table.add_row(state, str(count))
    console.print(table)
    if scores.guessed:
        console.print(
            f"{scores.guessed} letters were drawn at random, as in the published procedure, but with a fixed seed"
        )
    if scores.missing:
        ids = ", ".join(scores.missing[:3]) + (", ..." if len(scores.missing) > 3 else "")
        console.print(
            f"{len(scores.missing)} of {len(data.problems)} problems have no prediction ({ids})", markup=False
        )
