"""Options that several commands share, and the objects that their values name.

No module of the command line may import a heavy package at its top: ``vold-bench --help`` imports all of them.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import ConfigurationError

if TYPE_CHECKING:
    from bench.scoring.judge import Judge
    from bench.store import Store
    from vold.execution import ClientExecution

# Constructors of options, one per panel of a long help page.
problem_option = partial(typer.Option, rich_help_panel="Problems")
prompt_option = partial(typer.Option, rich_help_panel="Prompt and sampling")
compute_option = partial(typer.Option, rich_help_panel="Engine and hardware")
judge_option = partial(typer.Option, rich_help_panel="Judge of responses that the rules cannot read")
output_option = partial(typer.Option, rich_help_panel="Results")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Directory of finished stages. \\[default: results/store]")
]
ProfileOption = Annotated[
    str, typer.Option(help="Models, data, budgets and hardware: the name of a profile in profiles/, or a path.")
]
ReportOption = Annotated[
    Path, typer.Option("--report", help="Directory under which the report page gets a directory of its own.")
]

BenchmarkOption = Annotated[str, typer.Option(help="Benchmark, such as mathvision. An unknown name lists all of them.")]
DATA_HELP = "Benchmark data: a directory that holds benchmarks, BENCHMARK=DIRECTORY, or smallworld/SET?n=N. Repeatable."
DataOption = Annotated[list[str] | None, typer.Option("--data", help=f"{DATA_HELP} \\[default: $VOLD_BENCH_DATA]")]
SplitOption = Annotated[
    str | None,
    typer.Option(help="Split of the records, such as vision or testmini; required where several splits would fit."),
]
ModeOption = Annotated[
    str, typer.Option(help="Scoring: strict, or official for the benchmark's published procedure with its faults.")
]
ResultArgument = Annotated[
    str, typer.Argument(help="Evaluation: its directory, its id, or the name of a model in the store.")
]

LimitOption = Annotated[
    int | None, problem_option(min=1, help="Problems per data set; the same ones for every model. \\[default: all]")
]
TemperatureOption = Annotated[
    float | None, prompt_option(min=0, help="Sampling temperature; 0 is greedy. \\[default: 0]")
]
MaxTokensOption = Annotated[
    int | None, prompt_option(min=1, help="Maximum length of a response in tokens. \\[default: 2048]")
]
SeedOption = Annotated[int, prompt_option(min=0, help="Seed of the sampling.")]
DeviceOption = Annotated[str, compute_option(help="Device: auto, cpu or cuda.")]
ThreadsOption = Annotated[int | None, compute_option(min=1, help="CPU threads. \\[default: as many as torch chooses]")]

JudgeOption = Annotated[
    str | None, judge_option("--judge", help="URL of an OpenAI-compatible server with the judge model.")
]
JudgeModelOption = Annotated[str | None, judge_option("--judge-model", help="Name of the judge model on that server.")]
JudgeKeyOption = Annotated[
    str | None, judge_option("--judge-key-env", help="Environment variable with the server's API key.")
]


def example(command: str) -> str:
    """The example at the end of a command's help page."""
    return f"Example: {command}"


def open_store(path: Path | None) -> "Store":
    """The store that ``--store`` names, or the default one."""
    from bench.matrix import run
    from bench.store import Store

    return Store(path or run.STORE)


def split_commas(texts: Iterable[str] | None) -> list[str]:
    """The values of a repeatable option whose values may also be separated by commas."""
    return [name.strip() for text in texts or () for name in text.split(",") if name.strip()]


def judge_from(
    url: str | None,
    model: str | None,
    key_variable: str | None,
    agreement: int = 0,
    settings: "ClientExecution | None" = None,
) -> "Judge | None":
    """The judge that ``--judge`` and ``--judge-model`` name; its verdicts are cached under VOLD_BENCH_CACHE.

    Raises ConfigurationError when one of the two options is missing, when another judge option is set without them,
    and when the key's environment variable is empty.
    """
    if url is None and model is None:
        if key_variable is not None or agreement:
            option = "--judge-agreement" if agreement else "--judge-key-env"
            raise ConfigurationError(f"{option}: there is no judge; name one with --judge and --judge-model")
        return None
    if url is None or model is None:
        raise ConfigurationError("--judge and --judge-model go together: the server's URL and the model's exact name")
    from bench.engines.endpoint import key_from_environment
    from bench.scoring.judge import Judge, JudgeConfig
    from vold.files import cache_root

    key = key_from_environment(key_variable, "--judge-key-env")
    return Judge(JudgeConfig(url=url, model=model), cache_root() / "judge", key, settings)
