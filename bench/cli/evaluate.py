"""``vold-bench eval``: checkpoints on some benchmarks, in the store and the tables of the matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bench.cli.json_output import print_json
from bench.cli.options import (
    DATA_HELP,
    DeviceOption,
    Json,
    JudgeKeyOption,
    JudgeModelOption,
    JudgeOption,
    LimitOption,
    MaxTokensOption,
    SeedOption,
    StoreOption,
    TemperatureOption,
    ThreadsOption,
    compute_option,
    judge_from,
    open_store,
    output_option,
    problem_option,
    prompt_option,
    split_commas,
)

if TYPE_CHECKING:
    from bench.evaluate_models import EvaluatedModel, EvaluationOutputs
    from bench.evaluation_request import EvaluationRequest
    from bench.store import Store

ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Model: a checkpoint directory, OWNER/NAME@REVISION on the Hugging Face hub, smallworld/NAME, or "
        "URL#MODEL for a server. Repeatable.",
    ),
]
EvaluationDataOption = Annotated[
    list[str] | None,
    problem_option("--data", help=f"{DATA_HELP} \\[default: the small world, smallworld/test?n=150]"),
]
BenchmarksOption = Annotated[
    list[str] | None,
    problem_option("--benchmark", help="Only these benchmarks. Repeatable, or separated by commas. \\[default: all]"),
]
SplitsOption = Annotated[
    list[str] | None,
    problem_option(
        "--split",
        help="Split: SPLIT, or BENCHMARK=SPLIT. Repeatable, or separated by commas."
        " \\[default: the first split that has all its images]",
    ),
]
IdsOption = Annotated[
    list[str] | None,
    problem_option(
        "--ids", help="Only these problems: ids, or @FILE with one id per line. Repeatable, or separated by commas."
    ),
]
SamplesOption = Annotated[int | None, prompt_option(min=1, help="Responses per problem. \\[default: 1]")]
PromptOption = Annotated[
    str | None,
    prompt_option(
        help="Prompt template, such as plain, direct, cot, boxed or official. A name without a version means "
        "the newest. \\[default: plain@1]"
    ),
]
MinPixelsOption = Annotated[
    int | None, prompt_option(min=1, help="Scale smaller images up to this many pixels. \\[default: the model's]")
]
MaxPixelsOption = Annotated[
    int | None, prompt_option(min=1, help="Scale larger images down to this many pixels. \\[default: the model's]")
]
BlindOption = Annotated[bool | None, prompt_option("--blind", help="Leave the images out of the prompts.")]
NoThinkOption = Annotated[
    bool, prompt_option("--no-think", help="Turn thinking off with the switch of the model's chat template.")
]
EngineOption = Annotated[
    str | None,
    compute_option(
        help="Engine: auto, builtin, vllm, vllm_server, or openai for a URL."
        " \\[default: auto, which is vllm on a GPU and builtin otherwise]"
    ),
]
DtypeOption = Annotated[str | None, compute_option(help="Number format: float32 or bfloat16. \\[default: float32]")]
WorkersOption = Annotated[
    int | None, compute_option(min=0, help="Processes that prepare prompts. \\[default: 0 on a CPU, otherwise 1 to 4]")
]
ConcurrencyOption = Annotated[
    int | None, compute_option(min=1, help="Initial number of concurrent requests to a server. \\[default: 32]")
]
ReplicasOption = Annotated[
    int | None, compute_option(min=1, help="Servers of the engine vllm_server. \\[default: one per visible GPU]")
]
KeyOption = Annotated[
    str | None, compute_option("--key-env", help="Environment variable with the API key of a server.")
]
ExecutionOption = Annotated[
    list[str] | None,
    compute_option(
        "--execution",
        help="Any other execution setting, such as vllm.max_length=4096; `vold-bench settings execution` lists them. "
        "Repeatable.",
    ),
]
FreshOption = Annotated[bool, output_option("--fresh", help="Start over; the old result is kept with a suffix.")]
DryRunOption = Annotated[bool, output_option("--dry-run", help="Report what would be sent to the model; send nothing.")]
OutOption = Annotated[Path | None, output_option("--out", help="Directory that receives a copy of the result.")]
ExportOption = Annotated[
    Path | None, output_option("--export", help="Directory that receives the result in the formats of other tools.")
]
PageOption = Annotated[
    Path | None,
    output_option("--report", help="Directory under which the report page gets a directory of its own."),
]
CleanOption = Annotated[
    list[Path] | None,
    output_option("--clean-of", help="Result of `data audit`; the report also scores its clean problems. Repeatable."),
]


def evaluate(
    model: ModelsOption,
    data: EvaluationDataOption = None,
    benchmark: BenchmarksOption = None,
    split: SplitsOption = None,
    limit: LimitOption = None,
    ids: IdsOption = None,
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    prompt: PromptOption = None,
    min_pixels: MinPixelsOption = None,
    max_pixels: MaxPixelsOption = None,
    blind: BlindOption = None,
    no_think: NoThinkOption = False,
    seed: SeedOption = 0,
    engine: EngineOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = None,
    concurrency: ConcurrencyOption = None,
    replicas: ReplicasOption = None,
    key_env: KeyOption = None,
    execution: ExecutionOption = None,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    store: StoreOption = None,
    out: OutOption = None,
    export: ExportOption = None,
    report: PageOption = None,
    clean_of: CleanOption = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_key_env: JudgeKeyOption = None,
    as_json: Json = False,
) -> None:
    """Evaluate models on benchmarks. An interrupted evaluation resumes; a finished one is read from the store."""
    from bench.benchmark_data import data_sources
    from bench.cli.parsing import execution_options, problem_ids, requested_splits
    from bench.evaluate_models import EvaluationOutputs
    from bench.evaluation_request import EvaluationRequest, checked_execution

    sources = data_sources(data or (), split_commas(benchmark))
    settings = {
        "split": requested_splits(split_commas(split), list(sources)) or None, "limit": limit, "ids": problem_ids(ids),
        "samples": samples, "temperature": temperature, "max_tokens": max_tokens, "prompt": prompt,
        "min_pixels": min_pixels, "max_pixels": max_pixels, "blind": blind, "no_think": "off" if no_think else None,
        "engine": engine,
    }  # fmt: skip
    options = {
        "device": device, "dtype": dtype, "threads": threads, "evaluation": {"workers": workers},
        "client": {"concurrency": concurrency, "key_variable": key_env}, "vllm": {"replicas": replicas},
    }  # fmt: skip
    execution_settings = execution_options(options, execution or ())
    request = EvaluationRequest(model, sources, settings, seed, execution_settings, fresh)
    client = checked_execution(execution_settings).client
    reader = judge_from(judge, judge_model, judge_key_env, settings=client)
    outputs = EvaluationOutputs(out, export, report, clean_of or (), reader)
    (show_dry_run if dry_run else run)(open_store(store), request, outputs, as_json)


def run(store: "Store", request: "EvaluationRequest", outputs: "EvaluationOutputs", as_json: bool) -> None:
    """Evaluate the models and print the results; the strict ones are printed even if the judge fails."""
    from bench.evaluate_models import EvaluatedModel, evaluate_models

    results: list[EvaluatedModel] = []

    def on_evaluated(evaluated: list[EvaluatedModel]) -> None:
        results.extend(evaluated)
        if not as_json:
            _show_results(evaluated)

    try:
        evaluate_models(store, request, outputs, on_evaluated=on_evaluated)
    finally:
        if as_json and results:
            objects = [_result_data(result) for result in results]
            print_json(objects[0] if len(objects) == 1 else {"results": objects})
        elif not as_json:
            _show_judged(results)


def show_dry_run(
    store: "Store", request: "EvaluationRequest", outputs: "EvaluationOutputs", as_json: bool = False
) -> None:
    """Print what each model would be sent and what is answered already; sends nothing."""
    from bench.display import dry_run as table
    from bench.evaluate_models import dry_run

    previews = dry_run(store, request, outputs)
    if as_json:
        return print_json(
            {
                preview.label: {
                    "stage": preview.stage,
                    "benchmarks": {name: part.to_json() for name, part in preview.benchmarks.items()},
                }
                for preview in previews
            }
        )
    for preview in previews:
        table.show(f"{preview.label} ({preview.stage})", preview.benchmarks, Console(highlight=False))


def _result_data(result: "EvaluatedModel") -> dict[str, object]:
    data = {"stage": result.stage, "out": result.folder, "report": result.report, **result.summary.to_json()}
    if result.judged is None:
        return data
    return {**data, "judge": {**result.judged.to_json(), "file": result.judged.file}}


def _show_results(results: "Sequence[EvaluatedModel]") -> None:
    from bench.display import summary

    console = Console(highlight=False)
    for result in results:
        summary.show(result.label, result.summary, console)
        print(f"result: {result.folder}")
    summary.note(console)
    if results[0].report is not None:
        print(f"report: {results[0].report}")


def _show_judged(results: "Sequence[EvaluatedModel]") -> None:
    from bench.display import summary

    for result in results:
        if result.judged is not None:
            judged, console = result.judged, Console(highlight=False)
            summary.show_judged(result.label, judged.summary, judged.judge, judged.file, console)
