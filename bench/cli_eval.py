"""``vold-bench eval``: checkpoints on some benchmarks, in the store and the tables of the matrices."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.audit import read_audit
from bench.benchmarks import BENCHMARKS
from bench.datasets import SMALLWORLD
from bench.engines.endpoint import SCHEMES, is_remote
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.json_output import print_json
from bench.matrix.execute import execute
from bench.matrix.materials import Input, Materials
from bench.matrix.plan import Cell, Stage, make_stage, parse_setting, resolve
from bench.matrix.results import MatrixResults, environment, inputs, read
from bench.matrix.source import Where
from bench.matrix.spec import Analysis, Arm, MatrixSpec, Override, Primary, check_execution
from bench.matrix.stages import from_hub
from bench.matrix.store import Store, digest

if TYPE_CHECKING:
    from bench.engines.factory import EnginePool
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.dry_run import Ahead
    from vold.config import Execution

DEFAULT_DATA = f"{SMALLWORLD}test?n=150"
# Where only an upper limit is given; Qwen2.5-VL's own lower one.
_MIN_PIXELS = 56 * 56
# Options of the command line that bear another name in the configuration.
_RENAMED = {"prompt": "template", "no_think": "think"}


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked on the command line.

    settings: options that enter the identity of a result, None where not given. execution: nested settings of how it
    is run. fresh: what is there of these evaluations is put aside.
    """

    models: Sequence[str]
    data: Sequence[str] = ()
    benchmarks: Sequence[str] = ()
    settings: Mapping[str, Any] | None = None
    seed: int = 0
    execution: Mapping[str, Any] | None = None
    fresh: bool = False

    @property
    def sources(self) -> dict[str, str]:
        return select(self.data or [DEFAULT_DATA], self.benchmarks)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where else results go: copies of their files, other tools' forms, a page; JSON instead of tables.

    clean_of: audits, whose clean problems the page scores beside all.
    """

    out: Path | None = None
    export: Path | None = None
    reports: Path | None = None
    as_json: bool = False
    clean_of: Sequence[Path] = ()


def run(store: Store, request: Request, outputs: Outputs) -> None:
    """Evaluate every model, one after the other on a warm engine, then print and copy the results."""
    from bench.engines.factory import EnginePool

    if outputs.clean_of and outputs.reports is None:
        raise ConfigurationError("--clean-of: scores of clean problems stand on the page; ask for it with --report")
    for file in outputs.clean_of:
        read_audit(file)  # refused before anything is evaluated
    stages = plan(store, request)
    with EnginePool() as engines:
        for label, stage in stages.items():
            if request.fresh:
                _put_aside(stage, store)
            if not store.done(stage.id):
                _execute(label, stage, store, engines)
    results = _results(stages, store, request.seed)
    folders = {label: store.path(stage.id) / "out" for label, stage in stages.items()}
    _copy(folders, outputs)
    page = None
    if outputs.reports is not None:
        # Evaluations of one checkpoint under other settings get pages of their own.
        ids = [stage.id for stage in stages.values()]
        name = ids[0] if len(ids) == 1 else f"eval-{digest(ids)[:12]}"
        page = _report(results, list(stages), request, outputs.reports / name, outputs.clean_of)
    summaries = {label: results.summaries[label, request.seed] for label in stages}
    if outputs.as_json:
        found = [
            {"stage": stages[label].id, "out": folders[label], "report": page, **summary}
            for label, summary in summaries.items()
        ]
        print_json(found[0] if len(found) == 1 else {"results": found})
        return
    _show(summaries, folders, page)


def plan(store: Store, request: Request) -> dict[str, Stage]:
    """The evaluation of each model, by a label that tells the models apart. Raises ConfigurationError."""
    materials = Materials(store, Path.cwd())
    data = {
        f"data.{name}": materials.problems(name, source, Where("--data")) for name, source in request.sources.items()
    }
    stages = {}
    blind = " (blind)" if (request.settings or {}).get("blind") else ""
    for label, model in labels(request.models).items():
        found = {"model": _model(materials, model), **data}
        settings = dict(request.settings or {})
        if model.startswith(SCHEMES) and settings.get("engine") is None:
            settings["engine"] = "openai"
        missing = [item.absent for item in found.values() if item.absent]
        if missing:
            raise ConfigurationError("\n".join(missing))
        stages[label + blind] = _stage(found, settings, request.seed, request.execution or {})
    if (request.settings or {}).get("ids"):
        _chosen(next(iter(stages.values())), store)  # refuses an unknown id before anything starts
    return stages


def labels(models: Sequence[str]) -> dict[str, str]:
    """The last part of each model's name, or all of it where two end alike; raises ConfigurationError for a repeat."""
    if len(set(models)) != len(models):
        raise ConfigurationError(f"--model: {', '.join(models)} names one model twice")
    names = [Path(model).name.rpartition("#")[2] for model in models]
    return {name if names.count(name) == 1 else model: model for name, model in zip(names, models, strict=True)}


def dry_run(store: Store, request: Request, as_json: bool) -> None:
    """Print what would be asked, by benchmark, and what is answered already; asks nothing."""
    from bench.evaluation.dry_run import look_ahead
    from bench.evaluation.log import Key, answered

    found = {}
    for label, stage in plan(store, request).items():
        config, selections = _chosen(stage, store)
        known: set[Key] = set()
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


def _chosen(stage: Stage, store: Store) -> "tuple[EvalConfig, Any]":
    """The configuration of an evaluation and the problems that it asks."""
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.selection import choose

    names = [name for name in stage.spec.locations if name.startswith("data.")]
    places = {name.removeprefix("data."): stage.spec.path(name, store.root) for name in names}
    config = EvalConfig.model_validate(stage.spec.config)
    return config, choose(config, places)


def _preparer(stage: Stage, store: Store, config: "EvalConfig") -> Any:
    from bench.engines.encoding import EncodingPreparer

    location = stage.spec.locations["model"]
    hub = location.startswith("hub:")
    model = from_hub(location, weights=False) if hub else store.root / location
    if is_remote(model):
        raise ConfigurationError("--dry-run: counts tokens with the model's tokenizer, and a server's is not here")
    return EncodingPreparer(model, config.pixel_limits, config.thinking)


def with_settings(execution: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Nested settings of how an evaluation is run, changed by each ``vllm.max_length=64`` in turn.

    Raises ConfigurationError for an unknown name.
    """
    changed = _given(execution)
    for text in settings:
        override = parse_setting(text, "--execution", check_execution, "SETTING")
        *groups, name = override.key.split(".")
        place = changed
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = override.value
    return changed


def read_ids(text: str | None) -> list[str] | None:
    """Ids separated by commas, or the lines of @FILE; raises ConfigurationError where that cannot be read."""
    if text is None:
        return None
    if text.startswith("@"):
        try:
            lines = Path(text[1:]).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--ids {text}: cannot be read ({error})") from error
    else:
        lines = text.split(",")
    return [line.strip() for line in lines if line.strip()]


def select(data: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark to source, from what a person wrote after ``--data`` and ``--benchmarks``.

    Raises ConfigurationError for an unknown benchmark and for a directory that holds none.
    """
    for name in benchmarks:
        if name not in BENCHMARKS:
            raise ConfigurationError(f"--benchmarks {name}: unknown benchmark; {nearest(name, BENCHMARKS)}")
    sources: dict[str, str] = {}
    for entry in data:
        name, _, source = entry.partition("=")
        if entry.startswith(SMALLWORLD):
            sources |= dict.fromkeys(BENCHMARKS, entry)
        elif name in BENCHMARKS:
            sources[name] = source
        else:
            sources |= _inside(Path(entry).expanduser(), benchmarks)
    absent = [name for name in benchmarks if name not in sources]
    if absent:
        raise ConfigurationError(f"--benchmarks {','.join(absent)}: no data; give --data {absent[0]}=DIRECTORY")
    return {name: source for name, source in sources.items() if not benchmarks or name in benchmarks}


def _inside(root: Path, benchmarks: Sequence[str]) -> dict[str, str]:
    """The benchmarks that lie in directories of their names under ``root``, or ``root`` itself as the one asked for."""
    found = {name: str(root / name) for name in BENCHMARKS if (root / name).is_dir()}
    if found:
        return found
    if len(benchmarks) == 1 and root.exists():
        return {benchmarks[0]: str(root)}
    names = ", ".join(BENCHMARKS)
    raise ConfigurationError(f"--data {root}: holds no directory named {names}; or write BENCHMARK={root}")


def _model(materials: Materials, model: str) -> Input:
    where = Where("--model")
    path = Path(model).expanduser()
    if model.startswith((SMALLWORLD, "hub:", *SCHEMES)) or path.exists():
        return materials.model(model if not path.exists() else str(path.resolve()), where)
    raise ConfigurationError(f"--model {model}: no such directory; a model of the hub is written hub:OWNER/NAME")


def _stage(found: Mapping[str, Input], asked: dict[str, Any], seed: int, execution: Mapping[str, Any]) -> Stage:
    if asked.get("max_pixels") is not None and asked.get("min_pixels") is None:
        asked["min_pixels"] = min(_MIN_PIXELS, asked["max_pixels"])
    overrides = {}
    for option, value in asked.items():
        if value is not None:
            key = f"eval.{_RENAMED.get(option, option)}"
            overrides[key] = Override(key, value, Where(f"--{option.replace('_', '-')}"))
    config = resolve("eval", [overrides], "eval")
    used = seed if config.temperature > 0 else 0  # type: ignore[attr-defined]
    return make_stage("eval", config, found, used, _execution(execution).model_dump(mode="json"))


def _execution(given: Mapping[str, Any]) -> "Execution":
    """Checked settings; raises ConfigurationError naming each that is refused."""
    from pydantic import ValidationError

    from vold.config import Execution

    try:
        return Execution.model_validate(_given(given))
    except ValidationError as error:
        refused = (
            f"execution.{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}, found {wrong['input']!r}"
            for wrong in error.errors()
        )
        raise ConfigurationError("\n".join(refused)) from error


def _given(execution: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without those that were not given."""
    nested = {name: _given(value) if isinstance(value, Mapping) else value for name, value in execution.items()}
    return {name: value for name, value in nested.items() if value is not None}


def _put_aside(stage: Stage, store: Store) -> None:
    """Finished or begun, the evaluation keeps a directory beside its own; a finished one can still be compared."""
    from bench.evaluation.log import keep_aside

    with store.lock(stage.id):
        keep_aside(store.path(stage.id))
        keep_aside(store.work(stage.id))


def _execute(label: str, stage: Stage, store: Store, engines: "EnginePool") -> None:
    """Run the stage in this process, with a live view on a terminal and a line every now and then elsewhere."""
    from bench.eval_view import EvaluationView, LiveEvaluationView

    console = Console(stderr=True)
    kind = LiveEvaluationView if console.is_terminal else EvaluationView
    with kind(console, label, stage.spec.config["samples"]) as view:
        execute(stage.spec, store, view, engines=engines)


def _results(stages: Mapping[str, Stage], store: Store, seed: int) -> MatrixResults:
    by_id = {stage.id: stage for stage in stages.values()}
    origin = {
        "model": ", ".join(stages),
        "seed": seed,
        "inputs": inputs(by_id),
        "execution": next(iter(by_id.values())).spec.execution,
        **environment(),
    }
    cells = [Cell(label, seed, {"eval": stage.id}) for label, stage in stages.items()]
    return read(cells, by_id, store, origin)


def _copy(folders: Mapping[str, Path], outputs: Outputs) -> None:
    """The files of several models go into directories of their labels."""
    for label, folder in folders.items():
        below = "" if len(folders) == 1 else re.sub(r"[^\w.-]+", "-", label)
        if outputs.out is not None:
            shutil.copytree(folder, outputs.out / below, dirs_exist_ok=True)
        if outputs.export is not None:
            from bench.exports import export

            export(folder, outputs.export / below)


def _report(
    results: MatrixResults, models: Sequence[str], request: Request, out: Path, clean_of: Sequence[Path]
) -> Path:
    """The page of a matrix of arms that were not trained here."""
    from bench.report import build

    analysis = Analysis(primary=Primary(over=tuple(request.sources)), clean_of=tuple(map(str, clean_of)))
    arms = tuple(Arm(model, frozenset(("sft", "rl"))) for model in models)
    name = ", ".join(models)
    question = f"How many problems does {name} solve?" if len(models) == 1 else f"How many problems do {name} solve?"
    return build(MatrixSpec(name, question, (request.seed,), {}, arms, {}, analysis, Path(name)), results, out)


def _show(summaries: Mapping[str, Any], folders: Mapping[str, Path], page: Path | None) -> None:
    from bench import eval_table

    console = Console(highlight=False)
    for label, summary in summaries.items():
        eval_table.show(label, summary, console)
        print(f"result: {folders[label]}")
    eval_table.note(console)
    if page is not None:
        print(f"report: {page}")


def _show_ahead(title: str, parts: "Mapping[str, Ahead]") -> None:
    from bench.eval_table import plain_table

    console = Console(highlight=False)
    console.print(title, markup=False, style="bold")
    table = plain_table("data", "requests", "responses", "answered", "prompt\ntokens", "completion\nat most")
    for part in parts.values():
        estimated = "≈ " if part.counted < part.requests else ""
        tokens = f"{estimated}{part.prompt_tokens:,}"
        numbers = (f"{number:,}" for number in (part.requests, part.responses, part.answered))
        table.add_row(part.dataset, *numbers, tokens, f"{part.completion_tokens:,}")
    console.print(table)
    for part in parts.values():
        if part.unreadable:
            console.print(f"{part.dataset}: {part.unreadable} of {part.counted} prompts cannot be asked")
