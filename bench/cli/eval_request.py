"""What ``vold-bench eval`` was asked, and the evaluations that it means: models, data, settings, one stage a model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.benchmarks import BENCHMARKS, splits_there
from bench.benchmarks.repository import descriptor
from bench.engines.endpoint import SCHEMES
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.selection import Selection, choose
from bench.hints import nearest
from bench.matrix.inputs import Input, Materials
from bench.matrix.plan import Stage, make_stage, parse_setting, resolve
from bench.matrix.spec import Override, check_execution
from bench.matrix.yaml_file import Where
from bench.smallworld.sources import SMALLWORLD
from bench.store import Store
from vold.config import Execution

DEFAULT_DATA = f"{SMALLWORLD}test?n=150"
# Where only an upper limit is given; Qwen2.5-VL's own lower one.
_MIN_PIXELS = 56 * 56
# Options of the command line that bear another name in the configuration.
_RENAMED = {"prompt": "template", "no_think": "think", "split": "splits"}


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What was asked on the command line.

    sources: of each benchmark that is asked. settings: options that enter the identity of a result, None where not
    given. execution: nested settings of how it is run. fresh: what is there of these evaluations is put aside.
    """

    models: Sequence[str]
    sources: Mapping[str, str]
    settings: Mapping[str, Any] | None = None
    seed: int = 0
    execution: Mapping[str, Any] | None = None
    fresh: bool = False


def plan(store: Store, request: EvaluationRequest) -> dict[str, Stage]:
    """The evaluation of each model, by a label that tells the models apart. Raises ConfigurationError."""
    materials = Materials(store, Path.cwd())
    data = {
        f"data.{name}": materials.problems(name, source, Where("--data")) for name, source in request.sources.items()
    }
    splits = _splits_asked(request, data, store)
    stages = {}
    blind = " (blind)" if (request.settings or {}).get("blind") else ""
    for label, model in labels(request.models).items():
        found = {"model": _model(materials, model), **data}
        settings = {**(request.settings or {}), "split": splits or None}
        if model.startswith(SCHEMES) and settings.get("engine") is None:
            settings["engine"] = "openai"
        missing = [item.absent for item in found.values() if item.absent]
        if missing:
            raise ConfigurationError("\n".join(missing))
        stages[label + blind] = _stage(found, settings, request.seed, request.execution or {})
    if (request.settings or {}).get("ids"):
        chosen(next(iter(stages.values())), store)  # refuses an unknown id before anything starts
    return stages


def _splits_asked(request: EvaluationRequest, data: Mapping[str, Input], store: Store) -> dict[str, str]:
    """Benchmark to split; generated data have one alone, which is not named. Raises ConfigurationError for another."""
    found: dict[str, str] = dict((request.settings or {}).get("split") or {})
    for name, split in list(found.items()):
        place = store.root / data[f"data.{name}"].location
        described = descriptor(BENCHMARKS[name], place)
        if described:
            own = splits_there(name, place)
            if split not in own:
                raise ConfigurationError(
                    f"--split {name}={split}: {described.get('name', name)} is generated and has {', '.join(own)} "
                    f"alone; leave {name} out of --split"
                )
            del found[name]
    return found


def labels(models: Sequence[str]) -> dict[str, str]:
    """The last part of each model's name, or all of it where two end alike; raises ConfigurationError for a repeat."""
    places = [_place(model) for model in models]
    if len({path.resolve() if path.exists() else model for path, model in zip(places, models, strict=True)}) < len(
        models
    ):
        raise ConfigurationError(f"--model: {', '.join(models)} names one model twice")
    names = [path.name.rpartition("#")[2] or model for path, model in zip(places, models, strict=True)]
    return {name if names.count(name) == 1 else model: model for name, model in zip(names, models, strict=True)}


def chosen(stage: Stage, store: Store) -> tuple[EvalConfig, list[Selection]]:
    """The configuration of an evaluation and the problems that it asks."""
    names = [name for name in stage.spec.locations if name.startswith("data.")]
    places = {name.removeprefix("data."): stage.spec.path(name, store.root) for name in names}
    config = EvalConfig.model_validate(stage.spec.config)
    return config, choose(config, places)


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
    """Benchmark to source, from what a person wrote after ``--data`` (nothing: the small world) and ``--benchmarks``.

    Raises ConfigurationError for an unknown benchmark and for a directory that holds none.
    """
    for name in benchmarks:
        if name not in BENCHMARKS:
            raise ConfigurationError(f"--benchmarks {name}: unknown benchmark; {nearest(name, BENCHMARKS)}")
    sources: dict[str, str] = {}
    for entry in data or (DEFAULT_DATA,):
        name, given, source = entry.partition("=")
        if not (source if given else entry).strip():
            raise ConfigurationError(f"--data {entry}: names no directory; write DIRECTORY or BENCHMARK=DIRECTORY")
        if entry.startswith(SMALLWORLD):
            sources |= dict.fromkeys(BENCHMARKS, entry)
        elif given and name in BENCHMARKS:
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


def splits_of(texts: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark to split, from ``BENCHMARK=SPLIT``, or from ``SPLIT`` for each of ``benchmarks`` that has it.

    A benchmark's only split is not named: it is asked anyway. Raises ConfigurationError for a split that none has, for
    a benchmark that is not asked, and for a second split of one.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, split = text.rpartition("=")
        having = [each for each in ([name] if name else benchmarks) if split in _splits(each, text)]
        if not having:
            known = [each for benchmark in ([name] if name else benchmarks) for each in _splits(benchmark, text)]
            raise ConfigurationError(f"--split {text}: no such split; {nearest(split, known)}")
        if name and name not in benchmarks:
            raise ConfigurationError(f"--split {text}: {name} is not asked, but {', '.join(benchmarks)}")
        for each in having:
            if len(_splits(each, text)) > 1 and found.setdefault(each, split) != split:
                raise ConfigurationError(
                    f"--split {text}: {each} is asked for {found[each]} already; an evaluation asks one split of each"
                )
    return found


def _splits(benchmark: str, text: str) -> list[str]:
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"--split {text}: unknown benchmark; {nearest(benchmark, BENCHMARKS)}")
    return list(BENCHMARKS[benchmark].splits)


def _place(model: str) -> Path:
    """Where a model lies, were it a directory: absolute, with the name that was given."""
    return Path(os.path.abspath(Path(model).expanduser()))


def _model(materials: Materials, model: str) -> Input:
    where, path = Where("--model"), _place(model)
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
    return make_stage("eval", config, found, used, checked_execution(execution).model_dump(mode="json"))


def checked_execution(given: Mapping[str, Any]) -> Execution:
    """Checked settings; raises ConfigurationError naming each that is refused."""
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
