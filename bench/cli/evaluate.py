"""``vold-bench eval``: checkpoints on some benchmarks, in the store and the tables of the matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bench.cli.json_output import print_json
from bench.cli.options import (
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
    asked,
    chosen,
    computed,
    judge_of,
    listed,
    open_store,
    received,
)

if TYPE_CHECKING:
    from bench.evaluate_models import EvaluatedModel, EvaluationOutputs
    from bench.evaluation_request import EvaluationRequest
    from bench.store import Store

ModelsOption = Annotated[
    list[str],
    typer.Option(
        "--model", help="A checkpoint directory, hub:OWNER/NAME, smallworld/NAME, or URL#MODEL; may be repeated."
    ),
]
DataOption = Annotated[
    list[str] | None,
    chosen(
        help="A directory that holds the benchmarks, or BENCHMARK=DIRECTORY; several may be given. "
        "\\[default: the small world's four families]"
    ),
]
BenchmarksOption = Annotated[str, chosen(help="Only these, such as mathvision,logicvista.")]
SplitsOption = Annotated[
    list[str] | None,
    chosen(
        "--split",
        help="Such as vision, or mmmu_pro=vision,mathvision=testmini \\[default: the first with all its images].",
    ),
]
IdsOption = Annotated[
    str | None, chosen(help="Only these problems: ids separated by commas, or @FILE with one a line.")
]
SamplesOption = Annotated[int | None, asked(min=1, help="Responses to each problem \\[default: 1].")]
PromptOption = Annotated[
    str | None,
    asked(help="Prompt template, such as plain, direct, cot, boxed or official \\[default: plain]."),
]
MinPixelsOption = Annotated[int | None, asked(min=1, help="Images are scaled up to this many pixels.")]
MaxPixelsOption = Annotated[int | None, asked(min=1, help="Images are scaled down to this many pixels.")]
BlindOption = Annotated[bool | None, asked("--blind", help="Leave the images out.")]
NoThinkOption = Annotated[
    bool, asked("--no-think", help="Turn thinking off, by the switch of the model's chat template.")
]
EngineOption = Annotated[
    str | None,
    computed(
        help="auto, builtin, vllm, vllm_server, or openai for a URL \\[default: auto: vllm where a GPU is present]."
    ),
]
DtypeOption = Annotated[str | None, computed(help="float32 or bfloat16 \\[default: float32].")]
WorkersOption = Annotated[int | None, computed(min=0, help="Processes that prepare prompts ahead.")]
ConcurrencyOption = Annotated[int | None, computed(min=1, help="Requests to a server at once, at first.")]
ReplicasOption = Annotated[int | None, computed(min=1, help="Servers of vllm_server \\[default: one a visible GPU].")]
KeyOption = Annotated[str | None, computed(help="Environment variable that holds the key of a URL.")]
ExecutionOption = Annotated[
    list[str] | None,
    computed("--execution", help="Any other setting of how it is run, such as vllm.max_length=4096; repeatable."),
]
FreshOption = Annotated[bool, received("--fresh", help="Begin anew; what is there is kept beside it.")]
DryRunOption = Annotated[bool, received("--dry-run", help="Say what would be asked; ask nothing.")]
OutOption = Annotated[Path | None, received(help="Also copy the result's files into this directory.")]
ExportOption = Annotated[Path | None, received(help="Also write other tools' forms into this directory.")]
PageOption = Annotated[Path | None, received("--report", help="Also write a report page under this directory.")]
CleanOption = Annotated[
    list[Path] | None, received(help="A result of `data audit`: the page also scores the clean problems.")
]


def evaluate(
    model: ModelsOption,
    data: DataOption = None,
    benchmarks: BenchmarksOption = "",
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
    reports: PageOption = None,
    clean_of: CleanOption = None,
    judge: JudgeOption = None,
    judge_model: JudgeModelOption = None,
    judge_key_env: JudgeKeyOption = None,
    as_json: Json = False,
) -> None:
    """Evaluate checkpoints. Interrupted evaluations go on where they stood; finished ones are read again."""
    from bench.cli.parsing import data_sources, execution_options, problem_ids, requested_splits
    from bench.evaluate_models import EvaluationOutputs
    from bench.evaluation_request import EvaluationRequest, checked_execution

    sources = data_sources(data or (), listed(benchmarks))
    settings = {
        "split": requested_splits(listed(split), list(sources)) or None, "limit": limit, "ids": problem_ids(ids),
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
    reader = judge_of(judge, judge_model, judge_key_env, settings=client)
    outputs = EvaluationOutputs(out, export, reports, clean_of or (), reader)
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


def _result_data(result: "EvaluatedModel") -> dict[str, Any]:
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
