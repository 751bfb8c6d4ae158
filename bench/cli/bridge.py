"""``vold-bench bridge``: the scorers and tasks of other suites."""

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import (
    BenchmarkOption,
    DataOption,
    DeviceOption,
    Json,
    LimitOption,
    MaxTokensOption,
    ModeOption,
    SeedOption,
    SplitOption,
    TemperatureOption,
    ThreadsOption,
    example,
    split_commas,
)
from bench.cli.score import mode_of
from bench.errors import ConfigurationError
from bench.report.numbers import interval, percent
from bench.terminal import printable
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.bridges.vlmeval import ScorerComparison
    from bench.summary import Summary

_SHOWN_ROWS = 50
app = typer.Typer(help="Run the scorers and tasks of other suites next to ours.", no_args_is_help=True)


@app.command(
    "vlmeval",
    epilog=example("vold-bench bridge vlmeval predictions.jsonl --benchmark mathvision --data /data/benchmarks"),
)
def vlmeval(
    predictions: Annotated[Path, typer.Argument(help="A prediction file as for `score`, or a result of `eval`.")],
    benchmark: BenchmarkOption,
    data: DataOption = None,
    split: SplitOption = None,
    mode: ModeOption = "strict",
    cot: Annotated[bool, typer.Option("--cot", help="Score MMMU-Pro like VLMEvalKit's data sets named _COT.")] = False,
    trust_responses: Annotated[
        bool,
        typer.Option(
            "--trust-responses", help="Allow VLMEvalKit to run MathVision responses as code; it needs this for them."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file that receives both verdicts on each row.")] = None,
    as_json: Json = False,
) -> None:
    """Score responses with VLMEvalKit's own code and give a reason for each verdict that differs from ours."""
    from bench.benchmark_data import benchmark_path
    from bench.benchmarks.registry import find_benchmark
    from bench.bridges.vlmeval import compare
    from bench.review.predictions import result_predictions
    from bench.scoring.predictions import find_records, read_predictions
    from bench.scoring.scorer import score_predictions

    find_benchmark(benchmark)
    scoring = mode_of(mode)
    if predictions.is_dir():
        result = result_predictions(predictions, benchmark)
        title, problems, rows, verdicts = result.title, result.problems, result.predictions, result.verdicts
    else:
        rows = read_predictions(predictions)
        records = find_records(rows, predictions, benchmark, benchmark_path(benchmark, data or ()), split)
        title, problems, verdicts = records.title, records.problems, ()
    if not verdicts or scoring == "official":
        verdicts = score_predictions(benchmark, problems, rows, scoring).verdicts
    comparison = compare(benchmark, problems, rows, verdicts, mode, cot=cot, trust_responses=trust_responses)
    content = {**comparison.to_json(), "predictions": str(predictions)}
    if out is not None:
        write_whole(out, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    if as_json:
        return print_json(content)
    _show(title, comparison)


@app.command(
    "lm-eval", epilog=example("vold-bench bridge lm-eval --model runs/sft/out --data /data/text --task gsm8k,math500")
)
def lm_eval(
    model: Annotated[
        str,
        typer.Option(help="Model: a checkpoint directory, OWNER/NAME@REVISION on the hub, or smallworld/NAME."),
    ],
    data: Annotated[
        list[str],
        typer.Option(help="Text data: a directory with the records of the tasks, or TASK=DIRECTORY. Repeatable."),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these tasks of gsm8k, math500 and aime24. Repeatable, or separated by commas. \\[default: all]"
        ),
    ] = None,
    limit: LimitOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    prompt: Annotated[str, typer.Option(help="Prompt template.")] = "boxed",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the result. \\[default: results/lm_eval/MODEL]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on text-only tasks through lm-eval: did training hurt its text reasoning?"""
    from bench.model_source import parse_model

    path = parse_model(model, Path.cwd()).path()  # before the hub goes offline
    _prepare_lm_eval()
    from bench import summary
    from bench.bridges import text
    from bench.bridges.lm_eval import evaluate_text
    from bench.cli.parsing import task_directories
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.selection import select
    from vold.execution import Execution

    options = {"limit": limit, "max_tokens": max_tokens, "temperature": temperature, "template": prompt}
    config = EvalConfig.model_validate({name: value for name, value in options.items() if value is not None})
    directories = task_directories(data, split_commas(task) or list(text.FILES))
    datasets = [text.read_task(name, directory) for name, directory in directories.items()]
    folder = out or Path("results") / "lm_eval" / path.name
    evaluate_text(
        config,
        model=path,
        selections=[select(dataset, config.limit, config.subset_seed) for dataset in datasets],
        out=folder,
        seed=seed,
        execution=Execution(device=device) if threads is None else Execution(device=device, threads=threads),
    )
    result = summary.read(folder)
    if as_json:
        return print_json({"out": folder, **result.to_json()})
    _show_tasks(result)
    print(f"result: {folder}")


def _prepare_lm_eval() -> None:
    """Settings that lm-eval reads when it is imported. Raises ConfigurationError if it is not installed."""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    if find_spec("lm_eval") is None:
        raise ConfigurationError("the bridge needs lm-eval; install it with `pip install 'vold-bench[lm-eval]'`")


def _show_tasks(result: "Summary") -> None:
    table = Table("task", Column("n", justify="right"), "% right, 95 % interval", "unread")
    for name, part in result.benchmarks.items():
        measure = next(iter(part.measures.values()))
        states = ", ".join(f"{n} {state}" for state, n in part.states.items() if n and state not in ("right", "wrong"))
        score = f"{percent(measure.value)} {interval(measure.low, measure.high)}"
        table.add_row(name, str(part.n), score, states or "none")
    Console().print(table)


def _show(title: str, comparison: "ScorerComparison") -> None:
    from bench.bridges.reasons import MEANING

    numbers = comparison.to_json()
    console, judged, right = Console(), numbers["judged"], numbers["judged_correct"]
    console.print(
        f"{title}, VLMEvalKit {comparison.version} and our {comparison.mode} scoring: VLMEvalKit has a verdict on "
        f"{judged} of {numbers['n']} responses. Of these {right['vlmevalkit']} are right there and {right['ours']} are "
        f"right here; {numbers['agree']} verdicts agree.",
        highlight=False,
        markup=False,
    )
    table = Table("reason", Column("n", justify="right"), "meaning")
    for name, count in comparison.reasons.items():
        table.add_row(name, str(count), MEANING[name])
    if comparison.reasons:
        console.print(table)
    differing = [row for row in comparison.judged if row.reason is not None]
    rows = Table("id", "ours", "read here", "VLMEvalKit", "read there", "reason", title="verdicts that differ")
    for row in differing[:_SHOWN_ROWS]:
        rows.add_row(
            Text(printable(row.ours.id)),
            row.ours.state,
            _shortened(row.ours.extracted),
            "right" if row.theirs.right else "wrong",
            _shortened(row.theirs.extracted),
            row.reason,
        )
    if differing:
        console.print(rows)
    if len(differing) > _SHOWN_ROWS:
        console.print(f"... and {len(differing) - _SHOWN_ROWS} more; --json and --out list all of them")


def _shortened(text: str) -> Text:
    return Text(printable(text if len(text) <= 24 else f"{text[:21]}..."))
