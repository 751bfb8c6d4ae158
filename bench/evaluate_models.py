"""Evaluate models: the Python interface behind ``vold-bench eval``.

``evaluate_models`` runs the evaluations that a store lacks and returns every result. ``dry_run`` reports what a run
would send to each model.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ConfigurationError
from bench.evaluation_request import EvaluationRequest, plan_stages, selections
from bench.summary import Summary
from vold.files import file_name
from vold.locations import on_hub

if TYPE_CHECKING:
    from rich.console import Console

    from bench.engines.encoding import EncodingPreparer
    from bench.engines.factory import EnginePool
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.dry_run import RequestForecast
    from bench.matrix.plan import Stage
    from bench.matrix.results import MatrixResults
    from bench.review.judged import JudgedResult
    from bench.scoring.judge import Judge
    from bench.store import Store


@dataclass(frozen=True, slots=True)
class EvaluationOutputs:
    """What ``evaluate_models`` writes in addition to the store, and the judge that it asks.

    out: directory that receives a copy of each result.
    export: directory that receives each result in the formats of other tools.
    reports: directory under which a report page is written.
    clean_of: results of ``vold-bench data audit``; the page also scores their clean problems.
    judge: model that reads the responses which the rules could not read.
    """

    out: Path | None = None
    export: Path | None = None
    reports: Path | None = None
    clean_of: Sequence[Path] = ()
    judge: "Judge | None" = None

    def check(self) -> None:
        """Raises ConfigurationError for an output that could not be written after the evaluation."""
        from bench.benchmarks.audit import read_audit

        if self.clean_of and self.reports is None:
            raise ConfigurationError("--clean-of: the scores of clean problems are on the report page; add --report")
        for file in self.clean_of:
            read_audit(file)
        for option, path in (("--out", self.out), ("--export", self.export), ("--report", self.reports)):
            if path is not None and path.exists() and not path.is_dir():
                raise ConfigurationError(f"{option} {path}: is a file; name a directory")


@dataclass(slots=True)
class EvaluatedModel:
    """The finished evaluation of one model.

    label: name that is unique among the models of the request. stage: id in the store. folder: its tables.
    report: page that shows the summary, if one was written. judged: the verdicts of a judge, after it was asked.
    """

    label: str
    stage: str
    folder: Path
    summary: Summary
    report: Path | None = None
    judged: "JudgedResult | None" = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the evaluation of one model would send, by benchmark."""

    label: str
    stage: str
    benchmarks: "Mapping[str, RequestForecast]"


def evaluate_models(
    store: "Store",
    request: EvaluationRequest,
    outputs: EvaluationOutputs | None = None,
    *,
    on_evaluated: Callable[[list[EvaluatedModel]], None] | None = None,
    console: "Console | None" = None,
) -> list[EvaluatedModel]:
    """Evaluate each model that the store has no result of, write ``outputs``, and return all results.

    The models run one after the other and share an engine where they can. An interrupted evaluation resumes from the
    responses that were saved.

    on_evaluated: called with the results before the judge is asked; each ``judged`` is filled in afterwards.
    console: receives the progress; the default is standard error.

    Raises ConfigurationError for a request that cannot be evaluated, before any model is loaded.
    """
    outputs = outputs or EvaluationOutputs()
    outputs.check()
    stages = plan_stages(store, request)
    if outputs.judge and (request.fresh or not all(store.settled(stage.spec) for stage in stages.values())):
        outputs.judge.check()  # results that are all finished may find every verdict in the judge's cache
    _run(stages, store, request.fresh, console)
    matrix_results = _read(stages, store, request.seed)
    page = None if outputs.reports is None else _report(matrix_results, stages, request, outputs)
    results = [
        EvaluatedModel(
            label, stage.id, store.path(stage.id) / "out", matrix_results.summaries[label, "", request.seed], page
        )
        for label, stage in stages.items()
    ]
    _copy(results, outputs)
    if on_evaluated is not None:
        on_evaluated(results)
    if outputs.judge is not None:
        _judge(results, outputs, outputs.judge)
    return results


def dry_run(store: "Store", request: EvaluationRequest, outputs: EvaluationOutputs | None = None) -> list[DryRun]:
    """What ``evaluate_models`` would send to each model, and what is answered already; sends nothing.

    Raises ConfigurationError wherever the run would.
    """
    from bench.evaluation.dry_run import forecast
    from bench.evaluation.response_log import logged_keys
    from bench.records import ResponseKey

    if outputs is not None:
        outputs.check()
    previews = []
    for label, stage in plan_stages(store, request).items():
        config, chosen = selections(stage, store)
        keys: set[ResponseKey] = set()
        if not request.fresh:
            folder = store.path(stage.id) if store.done(stage.id) else store.work(stage.id)
            keys = logged_keys(folder / "responses.jsonl")
        previews.append(DryRun(label, stage.id, forecast(config, chosen, keys, _preparer(stage, store, config))))
    return previews


def _run(stages: "Mapping[str, Stage]", store: "Store", fresh: bool, console: "Console | None") -> None:
    """Run the stages that are not settled, in this process and on one pool of engines."""
    from bench.engines.factory import EnginePool

    with EnginePool() as engines:
        for label, stage in stages.items():
            if fresh:
                _put_aside(stage, store)
            if not store.settled(stage.spec):
                _execute(label, stage, store, engines, console)


def _put_aside(stage: "Stage", store: "Store") -> None:
    """Rename the stage's finished and unfinished directories; a finished one can still be compared by its new id."""
    from bench.evaluation.response_log import move_aside

    with store.lock(stage.id):
        move_aside(store.path(stage.id))
        move_aside(store.work(stage.id))


def _execute(label: str, stage: "Stage", store: "Store", engines: "EnginePool", console: "Console | None") -> None:
    from rich.console import Console

    from bench.display.evaluation import evaluation_view
    from bench.matrix.execute import execute

    with evaluation_view(console or Console(stderr=True), label, stage.spec.config["samples"]) as view:
        execute(stage.spec, store, view, engines=engines)


def _preparer(stage: "Stage", store: "Store", config: "EvalConfig") -> "EncodingPreparer | None":
    """The model's prompt encoder, or None for a model behind a server.

    Raises ConfigurationError where the engine does not fit the model.
    """
    from bench.engines.endpoint import is_remote
    from bench.engines.factory import check_kind
    from bench.store import from_hub

    location = stage.spec.locations["model"]
    model = from_hub(location, weights=False) if on_hub(location) else store.root / location
    check_kind(config.engine, model)
    if is_remote(model):
        return None
    from bench.engines.encoding import EncodingPreparer

    return EncodingPreparer(model, config.pixel_limits, config.thinking)


def _read(stages: "Mapping[str, Stage]", store: "Store", seed: int) -> "MatrixResults":
    """The evaluations as the results of a matrix with one arm per model."""
    from bench.matrix.plan import ArmSeed
    from bench.matrix.provenance import environment
    from bench.matrix.results import external_inputs, read

    by_id = {stage.id: stage for stage in stages.values()}
    origin = {
        "model": ", ".join(stages),
        "seed": seed,
        "inputs": external_inputs(by_id),
        "execution": next(iter(by_id.values())).spec.execution,
        **environment(),
    }
    cells = [ArmSeed(label, "", seed, {"eval": stage.id}) for label, stage in stages.items()]
    return read(cells, by_id, store, origin)


def _report(
    results: "MatrixResults", stages: "Mapping[str, Stage]", request: EvaluationRequest, outputs: EvaluationOutputs
) -> Path:
    """Write the report page of a matrix whose arms were not trained here; returns its path."""
    from bench.benchmarks.registry import pooled
    from bench.matrix.spec import Analysis, Arm, MatrixSpec, Primary
    from bench.report import build_report
    from bench.store import digest

    assert outputs.reports is not None
    # One page per set of evaluations: other settings of the same model have other ids.
    ids = [stage.id for stage in stages.values()]
    folder = outputs.reports / (ids[0] if len(ids) == 1 else f"eval-{digest(ids)[:12]}")
    primary = Primary(over=tuple(pooled(request.sources)))
    analysis = Analysis(primary=primary, clean_of=tuple(map(str, outputs.clean_of)))
    arms = tuple(Arm(label, frozenset(("sft", "rl"))) for label in stages)
    name = ", ".join(stages)
    question = f"How many problems does {name} solve?" if len(stages) == 1 else f"How many problems do {name} solve?"
    return build_report(
        MatrixSpec(name, question, (request.seed,), {}, arms, {}, analysis, Path(name)), results, folder
    )


def _copy(results: Sequence[EvaluatedModel], outputs: EvaluationOutputs) -> None:
    for result in results:
        below = _subfolder(result, results)
        if outputs.out is not None:
            shutil.copytree(result.folder, outputs.out / below, dirs_exist_ok=True)
        if outputs.export is not None:
            from bench.exports import export

            export(result.folder, outputs.export / below)


def _subfolder(result: EvaluatedModel, results: Sequence[EvaluatedModel]) -> str:
    """Below ``--out`` and ``--export``, several models have a directory each."""
    return "" if len(results) == 1 else file_name(result.label)


def _judge(results: Sequence[EvaluatedModel], outputs: EvaluationOutputs, judge: "Judge") -> None:
    """Ask the judge about each result and copy the file with its verdicts."""
    from bench.review.judged import judge_result

    for result in results:
        result.judged = judge_result(judge, result.folder.parent)
        if outputs.out is not None:
            shutil.copy(result.judged.file, outputs.out / _subfolder(result, results))
