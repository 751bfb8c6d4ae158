"""An evaluation request: models, data and settings, and the stage that evaluates each model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.benchmarks.registry import BENCHMARKS, available_splits
from bench.benchmarks.repository import read_descriptor
from bench.engines.endpoint import SCHEMES
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.model import directory_name
from bench.evaluation.selection import Selection, read_selections
from bench.matrix.inputs import Input, InputResolver
from bench.matrix.plan import Stage, make_stage, resolve
from bench.matrix.spec import Override
from bench.matrix.yaml_file import Where
from bench.store import Store
from vold.execution import Execution

# Used where only an upper limit is set; it is Qwen2.5-VL's own lower limit.
_MIN_PIXELS = 56 * 56
# Settings of a request whose name in ``EvalConfig`` differs.
_CONFIG_NAMES = {"prompt": "template", "no_think": "think", "split": "splits"}


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Models to evaluate on the same data with the same settings.

    models: checkpoint directories, hub models, ``smallworld/NAME`` or ``URL#MODEL``.
    sources: benchmark to its directory or ``smallworld/SPLIT?n=N``.
    settings: options of ``vold-bench eval`` that enter the identity of a result, such as ``limit`` and
        ``max_tokens``; None means the default.
    seed: seed of the sampling; it has no effect at temperature 0.
    execution: nested settings of ``vold.execution.Execution``.
    fresh: evaluate again; earlier results of the same evaluations are kept under another name.
    """

    models: Sequence[str]
    sources: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    execution: Mapping[str, object] = field(default_factory=dict)
    fresh: bool = False


def plan_stages(store: Store, request: EvaluationRequest) -> dict[str, Stage]:
    """The evaluation stage of each model, by a label that is unique among the models.

    Raises ConfigurationError for models, data or settings that cannot be used.
    """
    resolver = InputResolver(store, Path.cwd())
    data = {
        f"data.{name}": resolver.problems(name, source, Where("--data")) for name, source in request.sources.items()
    }
    settings = {**request.settings, "split": _splits(request, data, store) or None}
    suffix = " (blind)" if settings.get("blind") else ""
    stages = {}
    for label, model in model_labels(request.models).items():
        inputs = {"model": resolver.model(model, Where("--model")), **data}
        missing = [item.absent for item in inputs.values() if item.absent]
        if missing:
            raise ConfigurationError("\n".join(missing))
        remote = model.startswith(SCHEMES) and settings.get("engine") is None
        own_settings = {**settings, "engine": "openai"} if remote else settings
        stages[label + suffix] = _stage(inputs, own_settings, request.seed, request.execution)
    if settings.get("ids"):
        selections(next(iter(stages.values())), store)  # an unknown id is refused before anything starts
    return stages


def _splits(request: EvaluationRequest, data: Mapping[str, Input], store: Store) -> dict[str, str]:
    """The requested split of each benchmark, without generated data sets: they have only one, which is never named.

    Raises ConfigurationError for another split of a generated data set.
    """
    splits: dict[str, str] = dict(request.settings.get("split") or {})
    for name, split in list(splits.items()):
        path = store.root / data[f"data.{name}"].location
        description = read_descriptor(BENCHMARKS[name], path)
        if description:
            present = available_splits(name, path)
            if split not in present:
                raise ConfigurationError(
                    f"--split {name}={split}: {description.get('name', name)} is generated and has only the split "
                    f"{', '.join(present)}; leave {name} out of --split"
                )
            del splits[name]
    return splits


def model_labels(models: Sequence[str]) -> dict[str, str]:
    """Label to model: the last part of the model's name, or the whole name where two models share the last part.

    A checkpoint in a directory ``out`` goes by the name of the directory above it.

    Raises ConfigurationError when one model is named twice.
    """
    paths = [_absolute(model) for model in models]
    if len({path.resolve() if path.exists() else model for path, model in zip(paths, models, strict=True)}) < len(
        models
    ):
        raise ConfigurationError(f"--model: {', '.join(models)} names one model twice; name each model once")
    names = [directory_name(path).rpartition("#")[2] or model for path, model in zip(paths, models, strict=True)]
    return {name if names.count(name) == 1 else model: model for name, model in zip(names, models, strict=True)}


def selections(stage: Stage, store: Store) -> tuple[EvalConfig, list[Selection]]:
    """The configuration of an evaluation stage and the problems that it asks."""
    names = [name for name in stage.spec.locations if name.startswith("data.")]
    paths = {name.removeprefix("data."): stage.spec.path(name, store) for name in names}
    config = EvalConfig.model_validate(stage.spec.config)
    return config, read_selections(config, paths)


def _absolute(model: str) -> Path:
    """The model's name as an absolute path; symbolic links are kept."""
    return Path(os.path.abspath(Path(model).expanduser()))


def _stage(
    inputs: Mapping[str, Input], settings: Mapping[str, Any], seed: int, execution: Mapping[str, object]
) -> Stage:
    values = {name: value for name, value in settings.items() if value is not None}
    if "max_pixels" in values and "min_pixels" not in values:
        values["min_pixels"] = min(_MIN_PIXELS, values["max_pixels"])
    overrides = {}
    for name, value in values.items():
        key = f"eval.{_CONFIG_NAMES.get(name, name)}"
        overrides[key] = Override(key, value, Where(f"--{name.replace('_', '-')}"))
    config = resolve("eval", [overrides], "eval")
    used_seed = seed if config.temperature > 0 else 0  # type: ignore[attr-defined]
    return make_stage("eval", config, inputs, used_seed, checked_execution(execution).model_dump(mode="json"))


def checked_execution(settings: Mapping[str, object]) -> Execution:
    """``settings`` as an Execution; raises ConfigurationError that names each refused setting."""
    try:
        return Execution.model_validate(without_none(settings))
    except ValidationError as error:
        refused = (
            f"execution.{'.'.join(map(str, fault['loc']))}: {fault['msg']}, found {fault['input']!r}"
            for fault in error.errors()
        )
        raise ConfigurationError("\n".join(refused)) from error


def without_none(settings: Mapping[str, object]) -> dict[str, Any]:
    """Nested settings without those that are None."""
    nested = {name: without_none(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    return {name: value for name, value in nested.items() if value is not None}
