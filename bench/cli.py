"""The command line. Nothing heavy is imported before a command runs."""

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bench.errors import (
    EXIT_CODES,
    ConfigurationError,
    ErrorClass,
    ExitCode,
    VoldBenchError,
    classify,
    is_disk_full,
    raised_here,
)

if TYPE_CHECKING:
    from bench.matrix.plan import Plan
    from bench.matrix.store import Store

_EPILOG = "Exit codes: " + "; ".join(f"{code.value} {text}" for code, text in EXIT_CODES.items()) + "."
app = typer.Typer(
    name="vold-bench",
    help="Train, evaluate and compare reasoning transfer from a text-only teacher to a vision-language student.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train one stage from a configuration file.", no_args_is_help=True)
smallworld_app = typer.Typer(help="The embedded synthetic world.", no_args_is_help=True)
bridge_app = typer.Typer(help="Other suites' scorers and tasks beside ours.", no_args_is_help=True)
data_app = typer.Typer(help="Benchmark data on this machine.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(smallworld_app, name="smallworld")
app.add_typer(data_app, name="data")
app.add_typer(bridge_app, name="bridge")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where finished stages lie \\[default: results/store].")
]
ProfileOption = Annotated[str, typer.Option(help="Models, data and budgets: a name in profiles/ or a path.")]
SeedsOption = Annotated[str, typer.Option(help="Training seeds instead of the file's, such as 11,23.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting for every arm, such as rl.steps=10.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only this arm; may be given several times.")]
ConfigArgument = Annotated[Path, typer.Argument(help="YAML; see docs/guide.md.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that share the training, one a GPU \\[default: the file's].")
]
BenchmarkOption = Annotated[str, typer.Option(help="mmmu_pro, mathvision, mathvista or logicvista.")]
RecordsOption = Annotated[
    Path | None, typer.Option(help="Directory or file of the records \\[default: $VOLD_BENCH_DATA/BENCHMARK].")
]
SplitOption = Annotated[str | None, typer.Option(help="Needed where the benchmark has several.")]
ReportsOption = Annotated[Path, typer.Option("--reports", help="Directory that receives the report.")]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    if debug:
        os.environ["VOLD_BENCH_DEBUG"] = "1"


@app.command("run-matrix")
def run_matrix(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, such as ablations/cold_start.yaml.")],
    profile: ProfileOption = "small",
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done and what it costs; do nothing.")] = False,
    seeds: SeedsOption = "",
    settings: SetOption = None,
    only: OnlyOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Stages side by side \\[default: one a CPU].")] = None,
    store: StoreOption = None,
    reports: ReportsOption = Path("reports"),
    as_json: Json = False,
    report: Annotated[bool, typer.Option(help="Build the report at the end.")] = True,
) -> None:
    """Train and evaluate every arm of a matrix file and write its report.

    Finished stages are never done again; an interrupted run goes on where it stood.
    """
    from bench import cli_matrix

    made, home = _plan(matrix, profile, seeds, settings, only, store)
    if plan:
        cli_matrix.show_plan(made, home, as_json)
    else:
        raise typer.Exit(cli_matrix.run(made, home, jobs, reports if report else None, as_json))


@app.command()
def report(
    matrix: Annotated[Path, typer.Argument(help="A matrix file.")],
    profile: ProfileOption = "small",
    seeds: SeedsOption = "",
    settings: SetOption = None,
    only: OnlyOption = None,
    store: StoreOption = None,
    reports: ReportsOption = Path("reports"),
    as_json: Json = False,
) -> None:
    """Build the report again from what is finished; trains nothing."""
    from bench import cli_matrix

    made, home = _plan(matrix, profile, seeds, settings, only, store)
    raise typer.Exit(cli_matrix.rebuild(made, home, reports, as_json))


@app.command()
def check(
    update: Annotated[bool, typer.Option("--update", help="Record this run as the new baseline.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML here.")] = None,
    as_json: Json = False,
) -> None:
    """Guard against regressions: a quick small-world pass against the tracked baseline, paired."""
    from bench.cli_check import run

    raise typer.Exit(run(update=update, as_json=as_json, junit=junit))


@app.command("eval")
def evaluate(
    model: Annotated[
        list[str], typer.Option(help="A checkpoint directory, hub:OWNER/NAME or smallworld/NAME; may be repeated.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A directory that holds the benchmarks, or BENCHMARK=DIRECTORY; several may be given. "
            "\\[default: the small world's four families]"
        ),
    ] = None,
    benchmarks: Annotated[str, typer.Option(help="Only these, such as mathvision,logicvista.")] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="This many problems of each benchmark, the same for every model.")
    ] = None,
    ids: Annotated[
        str | None, typer.Option(help="Only these problems: ids separated by commas, or @FILE with one a line.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Responses to each problem \\[default: 1].")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: greedy \\[default: 0].")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest response \\[default: 2048].")] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Prompt template, such as plain, direct, cot, boxed or official \\[default: plain@1]."),
    ] = None,
    min_pixels: Annotated[int | None, typer.Option(min=1, help="Pictures are scaled up to this many pixels.")] = None,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Pictures are scaled down to this many pixels.")] = None,
    blind: Annotated[bool | None, typer.Option("--blind", help="Leave the pictures out.")] = None,
    no_think: Annotated[
        bool, typer.Option("--no-think", help="Turn thinking off, by the switch of the model's chat template.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto, builtin, vllm, vllm_server, or openai for a URL \\[default: auto: vllm where a GPU is present]."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16 \\[default: float32].")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare prompts ahead.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Requests in flight at first, of a server.")] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Servers of vllm_server \\[default: one a visible GPU].")
    ] = None,
    key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key of a URL.")] = None,
    settings_of_execution: Annotated[
        list[str] | None,
        typer.Option(
            "--execution", help="Any other setting of how it is run, such as vllm.max_length=4096; repeatable."
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; what is there is kept beside it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked; ask nothing.")] = False,
    store: StoreOption = None,
    out: Annotated[Path | None, typer.Option(help="Also copy the result's files into this directory.")] = None,
    export: Annotated[Path | None, typer.Option(help="Also write other tools' forms into this directory.")] = None,
    reports: Annotated[
        Path | None, typer.Option("--report", help="Also write a report page under this directory.")
    ] = None,
    clean_of: Annotated[
        list[Path] | None, typer.Option(help="A result of `data audit`: the page also scores the clean problems.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate checkpoints. Interrupted evaluations go on where they stood; finished ones are read again."""
    from bench import cli_eval

    settings = {
        "limit": limit, "ids": cli_eval.read_ids(ids), "samples": samples, "temperature": temperature,
        "max_tokens": max_tokens, "prompt": prompt, "min_pixels": min_pixels, "max_pixels": max_pixels, "blind": blind,
        "no_think": "off" if no_think else None, "engine": engine,
    }  # fmt: skip
    execution = {
        "device": device, "dtype": dtype, "threads": threads, "evaluation": {"workers": workers},
        "client": {"concurrency": concurrency, "key_variable": key_env}, "vllm": {"replicas": replicas},
    }  # fmt: skip
    chosen = [name for name in benchmarks.split(",") if name]
    how = cli_eval.with_settings(execution, settings_of_execution or ())
    request = cli_eval.Request(model, data or [], chosen, settings, seed, how, fresh)
    if dry_run:
        cli_eval.dry_run(_store(store), request, as_json)
    else:
        cli_eval.run(_store(store), request, cli_eval.Outputs(out, export, reports, as_json, clean_of or ()))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A result: its directory, its id, or the name of a model in the store.")],
    b: Annotated[str, typer.Argument(help="Another one; the difference is B minus A.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Compare two evaluations: which layers changed first, then the paired difference, items gained and lost."""
    from bench import cli_compare

    raise typer.Exit(cli_compare.run(_store(store), a, b, as_json))


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="The id of a problem.")],
    result: Annotated[
        str | None, typer.Option(help="As for compare \\[default: the newest that answered the problem].")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Where several have a problem of that id.")] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Show one problem of an evaluation whole: record, pictures, prompt, responses, verdicts."""
    from bench import cli_show

    cli_show.run(_store(store), id, result, benchmark, as_json)


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="Predictions: JSONL rows id, response, or a published file.")],
    benchmark: BenchmarkOption,
    records: RecordsOption = None,
    mode: Annotated[str, typer.Option(help="strict, or official: the published procedure, faults kept.")] = "strict",
    clean_of: Annotated[
        Path | None, typer.Option(help="A result of `data audit`: also score the problems that it found clean.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Also write the verdict on each row to this file.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server that reads what the rules cannot.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Exact name of the judge there.")] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds its key.")] = None,
    judge_agreement: Annotated[
        int, typer.Option(min=0, help="Also ask it about this many rows that the rules decided.")
    ] = 0,
) -> None:
    """Score predictions, whoever made them. Nothing is guessed in strict mode; official guesses are declared."""
    from bench import cli_score

    asked = cli_score.judge_of(judge, judge_model, judge_key_env)
    cli_score.run(file, benchmark, records, mode, clean_of, out, asked, judge_agreement)


@train_app.command()
def sft(config: ConfigArgument, processes: ProcessesOption = None) -> None:
    """Supervised fine-tuning on traces: the cold start."""
    from bench import cli_train

    cli_train.run("sft", config, processes)


@train_app.command()
def rl(config: ConfigArgument, processes: ProcessesOption = None) -> None:
    """GRPO, on-policy distillation, or both."""
    from bench import cli_train

    cli_train.run("rl", config, processes)


@app.command()
def export(
    result: Annotated[str, typer.Argument(help="A result: as for compare.")],
    to: Annotated[Path, typer.Option(help="Directory that receives a directory for each format.")],
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="lm-eval, vlmeval, every-eval-ever or hub \\[default: all].")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model-name", help="The model's name there, such as organization/model.")
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Write a finished evaluation in the forms of other tools."""
    from bench import cli_export

    cli_export.run(_store(store), result, to, formats or (), model, as_json)


@app.command()
def traces(config: Annotated[Path, typer.Argument(help="YAML; see docs/guide.md.")]) -> None:
    """Reasoning traces: a teacher answers prompts, for the cold start to imitate."""
    from bench import cli_train

    cli_train.run("traces", config)


@app.command()
def preflight(
    config: Annotated[Path, typer.Argument(help="A file for `train sft` or `train rl`, or a matrix file.")],
    profile: ProfileOption = "small",
    gpu: Annotated[
        str, typer.Option(help="The GPUs meant, such as 'H200 x 8' or '48GB' \\[default: this machine's].")
    ] = "",
    as_json: Json = False,
) -> None:
    """Find what is wrong with a training run before it starts. Reads files and settings, loads no weights."""
    from bench import cli_preflight

    raise typer.Exit(cli_preflight.run(config, profile, gpu, as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Versions, devices, disk and optional parts of this installation."""
    from bench import cli_info

    cli_info.doctor(as_json)


@data_app.command("list")
def data_list(
    root: Annotated[
        Path | None, typer.Argument(help="Directory of the benchmarks \\[default: $VOLD_BENCH_DATA].")
    ] = None,
    as_json: Json = False,
) -> None:
    """The benchmarks under a directory and how many problems each holds."""
    from bench import cli_data

    cli_data.list_records(root, as_json)


@data_app.command("import")
def data_import(
    source: Annotated[
        str, typer.Argument(help="hub:OWNER/NAME@REVISION, a directory or file of parquet, a TSV, or the repository's.")
    ],
    benchmark: BenchmarkOption,
    split: SplitOption = None,
    out: Annotated[Path, typer.Option(help="Receives BENCHMARK/SPLIT.parquet and a manifest.")] = Path("data"),
    partial: Annotated[bool, typer.Option("--partial", help="Fewer records than the split has are meant.")] = False,
    any_version: Annotated[bool, typer.Option("--any-version", help="Accept a TSV of another MD5.")] = False,
    as_json: Json = False,
) -> None:
    """Bring a benchmark's records from any public form into one table with pictures and hashes."""
    from bench import cli_data

    cli_data.import_records(source, benchmark, split, out, partial, any_version, as_json)


@data_app.command("verify")
def data_verify(
    root: Annotated[Path, typer.Argument(help="An imported benchmark, or a directory that holds some.")],
) -> None:
    """Whether every byte is as imported; what is not is named by file, row and picture."""
    from bench import cli_data

    cli_data.verify(root)


@data_app.command("audit")
def data_audit(
    benchmark: BenchmarkOption,
    against: Annotated[list[str], typer.Option(help="Training data: file:PATH or hub:OWNER/NAME; may be repeated.")],
    records: RecordsOption = None,
    split: SplitOption = None,
    distance: Annotated[
        int | None, typer.Option(min=0, max=32, help="Bits of 64 in which pictures alike may differ \\[default: 3].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write hits and clean ids here, for --clean-of of `score` and `eval`.")
    ] = None,
) -> None:
    """Find a benchmark's problems in training data: same or similar pictures, 13 words in a row."""
    from bench import cli_data

    cli_data.audit(benchmark, against, records, split, distance, out)


@bridge_app.command("vlmeval")
def bridge_vlmeval(
    predictions: Annotated[Path, typer.Argument(help="A prediction file as for `score`, or a result of `eval`.")],
    benchmark: BenchmarkOption,
    records: RecordsOption = None,
    mode: Annotated[str, typer.Option(help="Our scoring: strict or official.")] = "strict",
    cot: Annotated[bool, typer.Option("--cot", help="MMMU-Pro as VLMEvalKit's data sets named _COT.")] = False,
    trust_responses: Annotated[
        bool, typer.Option("--trust-responses", help="VLMEvalKit may evaluate MathVision responses as code.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Also write every row to this file.")] = None,
) -> None:
    """Score responses by VLMEvalKit's own code; every verdict that differs from ours has a reason."""
    from bench import cli_bridge

    cli_bridge.vlmeval(predictions, benchmark, records, mode, cot, trust_responses, out)


@bridge_app.command("lm-eval")
def bridge_lm_eval(
    model: Annotated[str, typer.Option(help="A checkpoint directory, or smallworld/NAME.")],
    data: Annotated[Path, typer.Option(help="Directory with the records of GSM8K, MATH-500 and AIME 2024.")],
    tasks: Annotated[str, typer.Option(help="Some of gsm8k, math500 and aime24.")] = "gsm8k,math500,aime24",
    limit: Annotated[
        int | None, typer.Option(min=1, help="This many problems of each, the same for every model.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest response.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: greedy.")] = None,
    prompt: Annotated[str, typer.Option(help="Name of the prompt template.")] = "boxed",
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the result \\[default: results/lm_eval/MODEL].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Text-only regression through lm-eval's API on our engines: did training hurt the text side?"""
    from bench import cli_bridge

    asked = {"limit": limit, "max_tokens": max_tokens, "temperature": temperature, "template": prompt}
    chosen = [name for name in tasks.split(",") if name]
    cli_bridge.lm_eval(model, chosen, data, asked, seed, {"device": device, "threads": threads}, out, as_json)


@smallworld_app.command("build")
def smallworld_build(
    out: Annotated[
        Path | None, typer.Option(help="Directory of the checkpoints \\[default: the bundled ones].")
    ] = None,
    names: Annotated[str, typer.Option(help="Only these, such as student_a,teacher.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Models trained side by side.")] = 2,
) -> None:
    """Train the small world's models from nothing; takes some CPU-minutes each."""
    from bench import cli_info

    cli_info.smallworld_build(out, [name for name in names.split(",") if name], jobs)


def _store(path: Path | None) -> "Store":
    from bench.matrix.run import STORE
    from bench.matrix.store import Store

    return Store(path or STORE)


def _plan(
    matrix: Path, profile: str, seeds: str, settings: list[str] | None, only: list[str] | None, store: Path | None
) -> "tuple[Plan, Store]":
    from bench.matrix.plan import make_plan, parse_setting

    home = _store(store)
    overrides = [parse_setting(text) for text in settings or ()]
    return make_plan(matrix, home, profile=profile, seeds=_seeds(seeds), overrides=overrides, only=only or ()), home


def _seeds(text: str) -> list[int] | None:
    if not text:
        return None
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--seeds {text}: expected whole numbers separated by commas, such as 11,23") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigurationError(f"--seeds {text}: seeds must be different numbers from 0")
    return seeds


def fail(error: BaseException) -> NoReturn:
    """Show an error as one block and leave with its exit code."""
    if os.environ.get("VOLD_BENCH_DEBUG"):
        traceback.print_exception(error)
    kind = classify(error)
    refused = isinstance(error, VoldBenchError) or (isinstance(error, RuntimeError) and raised_here(error))
    foreseen = refused or kind is not ErrorClass.FAILED
    code = error.exit_code if isinstance(error, VoldBenchError) else kind.exit_code if foreseen else ExitCode.INTERNAL
    title = code.name.lower().replace("_", " ") if foreseen else "internal error, please report it"
    lines = [f"error ({title}):", *(f"  {line}" for line in (str(error) or type(error).__name__).splitlines())]
    if is_disk_full(error):
        lines.append("  The disk is full. Nothing finished is lost; free some space and run the same command again.")
    if not foreseen:
        lines.append(f"  {type(error).__name__}; the option --debug before the command shows where")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(code)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except Exception as error:
        fail(error)


if __name__ == "__main__":
    main()
