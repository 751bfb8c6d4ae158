"""``vold-bench eval``: checkpoints on some benchmarks, in the store and the tables of the matrices."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

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
from bench.errors import ConfigurationError
from bench.terminal import printable
from vold.files import file_name

if TYPE_CHECKING:
    from bench.cli.eval_request import EvaluationRequest
    from bench.engines.encoding import EncodingPreparer
    from bench.engines.factory import EnginePool
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.dry_run import Ahead
    from bench.matrix.plan import Stage
    from bench.matrix.results import MatrixResults
    from bench.scoring.judge import Judge
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


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where else results go: copies of their files, other tools' forms, a page; JSON instead of tables.

    clean_of: audits, whose clean problems the page scores beside all. judge: reads what the rules could not.
    """

    out: Path | None = None
    export: Path | None = None
    reports: Path | None = None
    as_json: bool = False
    clean_of: Sequence[Path] = ()
    judge: "Judge | None" = None

    def check(self) -> None:
        """Raises ConfigurationError for what could not be written in the end."""
        from bench.benchmarks.audit import read_audit

        if self.clean_of and self.reports is None:
            raise ConfigurationError("--clean-of: scores of clean problems stand on the page; ask for it with --report")
        for file in self.clean_of:
            read_audit(file)
        for option, place in (("--out", self.out), ("--export", self.export), ("--report", self.reports)):
            if place is not None and place.exists() and not place.is_dir():
                raise ConfigurationError(f"{option} {place}: is a file; name a directory")


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
    from bench.cli.eval_request import EvaluationRequest, checked_execution, read_ids, select, splits_of, with_settings

    sources = select(data or (), listed(benchmarks))
    settings = {
        "split": splits_of(listed(split), list(sources)) or None, "limit": limit, "ids": read_ids(ids),
        "samples": samples, "temperature": temperature, "max_tokens": max_tokens, "prompt": prompt,
        "min_pixels": min_pixels, "max_pixels": max_pixels, "blind": blind, "no_think": "off" if no_think else None,
        "engine": engine,
    }  # fmt: skip
    given = {
        "device": device, "dtype": dtype, "threads": threads, "evaluation": {"workers": workers},
        "client": {"concurrency": concurrency, "key_variable": key_env}, "vllm": {"replicas": replicas},
    }  # fmt: skip
    how = with_settings(given, execution or ())
    request = EvaluationRequest(model, sources, settings, seed, how, fresh)
    reader = judge_of(judge, judge_model, judge_key_env, settings=checked_execution(how).client)
    outputs = Outputs(out, export, reports, as_json, clean_of or (), reader)
    if dry_run:
        outputs.check()  # as the run would, before anything else
        look(open_store(store), request, as_json)
    else:
        run(open_store(store), request, outputs)


def run(store: "Store", request: "EvaluationRequest", outputs: Outputs) -> None:
    """Evaluate every model, one after the other on a warm engine, then print and copy the results; a judge is last."""
    from bench.cli.eval_request import plan
    from bench.engines.factory import EnginePool

    outputs.check()
    stages = plan(store, request)
    if outputs.judge and (request.fresh or not all(store.settled(stage.spec) for stage in stages.values())):
        outputs.judge.check()  # finished evaluations may find all its answers in the cache
    with EnginePool() as engines:
        for label, stage in stages.items():
            if request.fresh:
                _put_aside(stage, store)
            if not store.settled(stage.spec):
                _execute(label, stage, store, engines)
    results = _results(stages, store, request.seed)
    folders = {label: store.path(stage.id) / "out" for label, stage in stages.items()}
    _copy(folders, outputs)
    page = None if outputs.reports is None else _report(results, stages, request, outputs.reports, outputs.clean_of)
    summaries = {label: results.summaries[label, request.seed] for label in stages}
    if not outputs.as_json:
        _show(summaries, folders, page)
    judged: dict[str, Any] = {}
    try:
        for label in stages if outputs.judge else ():
            judged[label] = _judge(label, folders, outputs)
    finally:
        # Whatever the judge may fail at, the strict results are told.
        if outputs.as_json:
            found = [
                {"stage": stages[label].id, "out": folders[label], "report": page, **summary}
                | ({"judge": judged[label]} if label in judged else {})
                for label, summary in summaries.items()
            ]
            print_json(found[0] if len(found) == 1 else {"results": found})


def look(store: "Store", request: "EvaluationRequest", as_json: bool) -> None:
    """Print what would be asked, by benchmark, and what is answered already; asks nothing."""
    from bench.cli import eval_request
    from bench.evaluation.dry_run import look_ahead
    from bench.evaluation.response_log import answered
    from bench.records import ResponseKey

    found = {}
    for label, stage in eval_request.plan(store, request).items():
        config, selections = eval_request.chosen(stage, store)
        known: set[ResponseKey] = set()
        if not request.fresh:
            place = store.path(stage.id) if store.done(stage.id) else store.work(stage.id)
            known = answered(place / "responses.jsonl")
        found[label] = stage.id, look_ahead(config, selections, known, _preparer(stage, store, config))
    if as_json:
        print_json(
            {
                label: {"stage": id, "benchmarks": {name: part.to_json() for name, part in parts.items()}}
                for label, (id, parts) in found.items()
            }
        )
        return
    for label, (id, parts) in found.items():
        _show_ahead(f"{label} ({id})", parts)


def _preparer(stage: "Stage", store: "Store", config: "EvalConfig") -> "EncodingPreparer | None":
    """None for a model behind a server, which is not asked; raises ConfigurationError where the engine cannot be."""
    from bench.engines.endpoint import is_remote
    from bench.engines.factory import check_kind
    from bench.store import from_hub

    location = stage.spec.locations["model"]
    hub = location.startswith("hub:")
    model = from_hub(location, weights=False) if hub else store.root / location
    check_kind(config.engine, model)
    if is_remote(model):
        return None
    from bench.engines.encoding import EncodingPreparer

    return EncodingPreparer(model, config.pixel_limits, config.thinking)


def _put_aside(stage: "Stage", store: "Store") -> None:
    """Finished or begun, the evaluation keeps a directory beside its own; a finished one can still be compared."""
    from bench.evaluation.response_log import keep_aside

    with store.lock(stage.id):
        keep_aside(store.path(stage.id))
        keep_aside(store.work(stage.id))


def _execute(label: str, stage: "Stage", store: "Store", engines: "EnginePool") -> None:
    """Run the stage in this process, with a live view on a terminal and a line every now and then elsewhere."""
    from bench.display.evaluation import EvaluationView, LiveEvaluationView
    from bench.matrix.execute import execute

    console = Console(stderr=True)
    kind = LiveEvaluationView if console.is_terminal else EvaluationView
    with kind(console, label, stage.spec.config["samples"]) as view:
        execute(stage.spec, store, view, engines=engines)


def _results(stages: "Mapping[str, Stage]", store: "Store", seed: int) -> "MatrixResults":
    from bench.matrix.plan import ArmSeed
    from bench.matrix.provenance import environment
    from bench.matrix.results import inputs, read

    by_id = {stage.id: stage for stage in stages.values()}
    origin = {
        "model": ", ".join(stages),
        "seed": seed,
        "inputs": inputs(by_id),
        "execution": next(iter(by_id.values())).spec.execution,
        **environment(),
    }
    cells = [ArmSeed(label, seed, {"eval": stage.id}) for label, stage in stages.items()]
    return read(cells, by_id, store, origin)


def _copy(folders: Mapping[str, Path], outputs: Outputs) -> None:
    for label, folder in folders.items():
        below = _below(label, folders)
        if outputs.out is not None:
            shutil.copytree(folder, outputs.out / below, dirs_exist_ok=True)
        if outputs.export is not None:
            from bench.exports import export

            export(folder, outputs.export / below)


def _below(label: str, folders: Mapping[str, Path]) -> str:
    """The files of several models go into directories of their labels."""
    return "" if len(folders) == 1 else file_name(label)


def _judge(label: str, folders: Mapping[str, Path], outputs: Outputs) -> dict[str, Any]:
    """Ask the judge about one result, and show and copy what it read beside the strict tables."""
    from bench.display import summary as summary_table
    from bench.review.judged import judge_result

    assert outputs.judge is not None
    judged = judge_result(outputs.judge, folders[label].parent)
    if outputs.out is not None:
        shutil.copy(judged["file"], outputs.out / _below(label, folders))
    if not outputs.as_json:
        summary_table.show_judged(label, judged, Console(highlight=False))
    return judged


def _report(
    results: "MatrixResults",
    stages: "Mapping[str, Stage]",
    request: "EvaluationRequest",
    under: Path,
    clean_of: Sequence[Path],
) -> Path:
    """The page of a matrix of arms that were not trained here."""
    from bench.matrix.spec import Analysis, Arm, MatrixSpec, Primary
    from bench.report import build
    from bench.store import digest

    # Evaluations of one checkpoint under other settings get pages of their own.
    ids = [stage.id for stage in stages.values()]
    out = under / (ids[0] if len(ids) == 1 else f"eval-{digest(ids)[:12]}")
    analysis = Analysis(primary=Primary(over=tuple(request.sources)), clean_of=tuple(map(str, clean_of)))
    arms = tuple(Arm(model, frozenset(("sft", "rl"))) for model in stages)
    name = ", ".join(stages)
    question = f"How many problems does {name} solve?" if len(stages) == 1 else f"How many problems do {name} solve?"
    return build(MatrixSpec(name, question, (request.seed,), {}, arms, {}, analysis, Path(name)), results, out)


def _show(summaries: Mapping[str, Any], folders: Mapping[str, Path], page: Path | None) -> None:
    from bench.display import summary as summary_table

    console = Console(highlight=False)
    for label, summary in summaries.items():
        summary_table.show(label, summary, console)
        print(f"result: {folders[label]}")
    summary_table.note(console)
    if page is not None:
        print(f"report: {page}")


def _show_ahead(title: str, parts: "Mapping[str, Ahead]") -> None:
    from bench.display.summary import data_name, plain_table, show_passed_over

    console = Console(highlight=False)
    console.print(title, markup=False, style="bold")
    names = {benchmark: data_name(benchmark, part.to_json()) for benchmark, part in parts.items()}
    table = plain_table("data", "requests", "responses", "answered", "prompt\ntokens", "completion\nat most")
    for benchmark, part in parts.items():
        estimated = "≈ " if part.counted < part.requests else ""
        tokens = "not known" if part.prompt_tokens is None else f"{estimated}{part.prompt_tokens:,}"
        numbers = (f"{number:,}" for number in (part.requests, part.responses, part.answered))
        table.add_row(Text(printable(names[benchmark])), *numbers, tokens, f"{part.completion_tokens:,}")
    console.print(table)
    for benchmark, part in parts.items():
        show_passed_over(names[benchmark], part.passed_over, console)
        if part.unreadable:
            console.print(
                f"{names[benchmark]}: {part.unreadable} of {part.counted} prompts cannot be asked", markup=False
            )
