"""Options that several commands share, declared once, and what their words mean.

Every module of the command line imports nothing heavy before a command runs: ``vold-bench --help`` reads them all.
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
    from vold.config import ClientExecution

# Options by panel of the help page, where a page has many.
chosen = partial(typer.Option, rich_help_panel="Which problems")
asked = partial(typer.Option, rich_help_panel="How the model is asked")
computed = partial(typer.Option, rich_help_panel="Where and how it computes")
judged = partial(typer.Option, rich_help_panel="A judge for what the rules cannot read")
received = partial(typer.Option, rich_help_panel="Results")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where finished stages lie \\[default: results/store].")
]
ProfileOption = Annotated[str, typer.Option(help="Models, data and budgets: a name in profiles/ or a path.")]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Directory that receives the report.")]

BenchmarkOption = Annotated[str, typer.Option(help="mmmu_pro, mathvision, mathvista or logicvista.")]
RecordsOption = Annotated[
    Path | None, typer.Option(help="Directory or file of the records \\[default: $VOLD_BENCH_DATA/BENCHMARK].")
]
SplitOption = Annotated[
    str | None, typer.Option(help="Split of the records, such as vision or testmini; needed where several would do.")
]
ModeOption = Annotated[str, typer.Option(help="strict, or official: the published procedure, faults kept.")]
ResultArgument = Annotated[
    str, typer.Argument(help="A result: its directory, its id, or the name of a model in the store.")
]

LimitOption = Annotated[
    int | None, chosen(min=1, help="This many problems of each data set, the same for every model.")
]
TemperatureOption = Annotated[float | None, asked(min=0, help="0: greedy \\[default: 0].")]
MaxTokensOption = Annotated[int | None, asked(min=1, help="Tokens of the longest response \\[default: 2048].")]
SeedOption = Annotated[int, asked(min=0, help="Seed of the sampling.")]
DeviceOption = Annotated[str, computed(help="auto, cpu or cuda.")]
ThreadsOption = Annotated[int | None, computed(min=1, help="CPU threads.")]

JudgeOption = Annotated[
    str | None, judged("--judge", help="URL of an OpenAI-compatible server that reads what the rules cannot.")
]
JudgeModelOption = Annotated[str | None, judged("--judge-model", help="Exact name of the judge there.")]
JudgeKeyOption = Annotated[str | None, judged("--judge-key-env", help="Environment variable that holds its key.")]


def open_store(path: Path | None) -> "Store":
    """The store that ``--store`` names, or the default one."""
    from bench.matrix import run
    from bench.store import Store

    return Store(path or run.STORE)


def listed(texts: str | Iterable[str] | None) -> list[str]:
    """Names separated by commas, in one option or in several."""
    given = [texts] if isinstance(texts, str) else texts or ()
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def judge_of(
    url: str | None,
    model: str | None,
    key_variable: str | None,
    agreement: int = 0,
    settings: "ClientExecution | None" = None,
) -> "Judge | None":
    """The judge that ``--judge`` and ``--judge-model`` name; its answers are kept under VOLD_BENCH_CACHE.

    Raises ConfigurationError for one without the other, for what else is said of a judge without one, and for a key
    that is not there.
    """
    if url is None and model is None:
        if key_variable is not None or agreement:
            option = "--judge-agreement" if agreement else "--judge-key-env"
            raise ConfigurationError(f"{option}: there is no judge; name one with --judge and --judge-model")
        return None
    if url is None or model is None:
        raise ConfigurationError("--judge and --judge-model go together: the server's URL, and the model's exact name")
    from bench.engines.endpoint import key_from_environment
    from bench.scoring.judge import Judge, JudgeConfig
    from vold.files import cache_root

    key = key_from_environment(key_variable, "--judge-key-env")
    return Judge(JudgeConfig(url=url, model=model), cache_root() / "judge", key, settings)
