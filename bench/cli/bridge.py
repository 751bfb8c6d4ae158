"""``vold-bench bridge``: other suites' scorers and tasks beside ours."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench import summary
from bench.cli.json_output import print_json
from bench.cli.options import (
    BenchmarkOption,
    DeviceOption,
    Json,
    LimitOption,
    MaxTokensOption,
    ModeOption,
    RecordsOption,
    SeedOption,
    SplitOption,
    TemperatureOption,
    ThreadsOption,
    listed,
)
from bench.cli.score import mode_of
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.report.numbers import interval, percent
from bench.terminal import printable
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.bridges.vlmeval import ScorerComparison
    from bench.summary import Summary

_SHOWN = 50
app = typer.Typer(help="Other suites' scorers and tasks beside ours.", no_args_is_help=True)


@app.command("vlmeval")
def vlmeval(
    predictions: Annotated[Path, typer.Argument(help="A prediction file as for `score`, or a result of `eval`.")],
    benchmark: BenchmarkOption,
    records: RecordsOption = None,
    split: SplitOption = None,
    mode: ModeOption = "strict",
    cot: Annotated[bool, typer.Option("--cot", help="MMMU-Pro as VLMEvalKit's data sets named _COT.")] = False,
    trust_responses: Annotated[
        bool, typer.Option("--trust-responses", help="VLMEvalKit may evaluate MathVision responses as code.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Also write every row to this file.")] = None,
) -> None:
    """Score responses by VLMEvalKit's own code; every verdict that differs from ours has a reason."""
    from bench.benchmarks import find_benchmark
    from bench.bridges.vlmeval import compare
    from bench.review.predictions import answered
    from bench.scoring.predictions import find_records, read_predictions
    from bench.scoring.verdicts import score_predictions

    find_benchmark(benchmark)
    scoring = mode_of(mode)
    if predictions.is_dir():
        found = answered(predictions, benchmark)
        title, problems, given, verdicts = found.title, found.problems, found.predictions, found.verdicts
    else:
        given = read_predictions(predictions)
        data = find_records(given, predictions, benchmark, records, split)
        title, problems, verdicts = data.title, data.problems, ()
    if not verdicts or scoring == "official":
        verdicts = score_predictions(benchmark, problems, given, scoring).verdicts
    compared = compare(benchmark, problems, given, verdicts, mode, cot=cot, trust_responses=trust_responses)
    if out is not None:
        result = {**compared.to_json(), "predictions": str(predictions)}
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    _show(title, compared)


@app.command("lm-eval")
def lm_eval(
    model: Annotated[str, typer.Option(help="A checkpoint directory, or smallworld/NAME.")],
    data: Annotated[Path, typer.Option(help="Directory with the records of GSM8K, MATH-500 and AIME 2024.")],
    tasks: Annotated[str, typer.Option(help="Some of gsm8k, math500 and aime24.")] = "gsm8k,math500,aime24",
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    prompt: Annotated[str, typer.Option(help="Name of the prompt template.")] = "boxed",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the result \\[default: results/lm_eval/MODEL].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Text-only regression through lm-eval's API on our engines: did training hurt the text side?"""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")  # before lm-eval is imported
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    if find_spec("lm_eval") is None:
        raise ConfigurationError("the bridge needs lm-eval; install it with `pip install 'vold-bench[lm-eval]'`")
    from bench.bridges import text
    from bench.bridges.lm_eval import evaluate_text
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.selection import select
    from vold.config import Execution

    path = _checkpoint(model)
    asked = {"limit": limit, "max_tokens": max_tokens, "temperature": temperature, "template": prompt}
    config = EvalConfig.model_validate({name: value for name, value in asked.items() if value is not None})
    sets = [text.read_task(name, data) for name in listed(tasks)]
    place = out or Path("results") / "lm_eval" / path.name
    evaluate_text(
        config,
        model=path,
        selections=[select(found, config.limit, config.subset_seed) for found in sets],
        out=place,
        seed=seed,
        execution=Execution(device=device) if threads is None else Execution(device=device, threads=threads),
    )
    result = summary.read(place)
    if as_json:
        return print_json({"out": place, **result.to_json()})
    _show_tasks(result)
    print(f"result: {place}")


def _show_tasks(result: "Summary") -> None:
    table = Table("task", Column("n", justify="right"), "% right, 95 % interval", "not read")
    for name, part in result.benchmarks.items():
        measure = next(iter(part.measures.values()))
        states = ", ".join(f"{n} {state}" for state, n in part.states.items() if n and state not in ("right", "wrong"))
        score = f"{percent(measure.value)} {interval(measure.low, measure.high)}"
        table.add_row(name, str(part.n), score, states or "none")
    Console().print(table)


def _checkpoint(model: str) -> Path:
    from bench.smallworld import CHECKPOINTS, checkpoint_path
    from bench.smallworld.sources import SMALLWORLD

    if model.startswith(SMALLWORLD):
        name = model.removeprefix(SMALLWORLD)
        if name not in CHECKPOINTS:
            raise ConfigurationError(f"--model {model}: unknown; {nearest(name, CHECKPOINTS)}")
        return checkpoint_path(name)
    path = Path(model).expanduser()
    if not path.is_dir():
        raise ConfigurationError(f"--model {model}: no such directory")
    return path


def _show(title: str, compared: "ScorerComparison") -> None:
    from bench.bridges.reasons import MEANING

    found = compared.to_json()
    console, judged = Console(), found["judged"]
    console.print(
        f"{title}, ms-vlmeval {compared.version} beside our {compared.mode} scoring: it has a verdict on "
        f"{judged} of {found['n']} responses; of these {found['judged_correct']['vlmevalkit']} are right there and "
        f"{found['judged_correct']['ours']} here; {found['agree']} verdicts agree",
        highlight=False,
        markup=False,
    )
    table = Table("reason", Column("n", justify="right"), "what it means")
    for name, count in compared.reasons.items():
        table.add_row(name, str(count), MEANING[name])
    if compared.reasons:
        console.print(table)
    differing = [row for row in compared.judged if row.reason is not None]
    rows = Table("id", "ours", "read here", "VLMEvalKit", "read there", "reason", title="verdicts that differ")
    for row in differing[:_SHOWN]:
        there = "right" if row.theirs.right else "wrong"
        rows.add_row(
            Text(printable(row.ours.id)),
            row.ours.state,
            _cut(row.ours.extracted),
            there,
            _cut(row.theirs.extracted),
            row.reason,
        )
    if differing:
        console.print(rows)
    if len(differing) > _SHOWN:
        console.print(f"... and {len(differing) - _SHOWN} more; --json lists them all")


def _cut(text: str) -> Text:
    return Text(printable(text if len(text) <= 24 else f"{text[:21]}..."))
