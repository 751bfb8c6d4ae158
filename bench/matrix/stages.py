"""The kinds of stage: the configuration of each, and the function that does its work.

A stage works in a directory: it reads ``spec.json`` and writes ``out/``. The functions import heavy libraries only when
they run, because every stage runs in a process of its own.

Raise ``Kind.version`` below whenever an edit, in any module that a stage calls, changes what stages of that kind
compute. The version is part of a stage's identity. If it stays the same, finished stages of the old code are taken for
results of the new code, and the store cannot notice. Settings and their defaults need no new version, because they are
part of the identity themselves. The rules for reading answers have a version of their own (``vold.answers.VERSION``),
and so has every prompt template (``boxed@2``).
"""

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bench.matrix.ranks import distribute
from bench.store import StageSpec, Store
from vold.training.progress import Progress

if TYPE_CHECKING:
    from bench.engines.factory import EnginePool

# Modules that stages need and that take seconds to import; a launcher may import them once and fork stages from there.
PRELOAD = (
    "torch",
    "transformers",
    "vold.training.sft",
    "vold.training.rl",
    "vold.training.traces",
    "bench.engines.builtin",
    "bench.evaluation.run",
    "bench.evaluation.parquet_tables",
    "bench.stats.samples",
    "statsmodels.stats.proportion",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What planning and execution need to know about a kind of stage.

    version: number of the code that computes it; see the module's docstring.
    config: the class of its settings, as ``module:name``.
    run: the function that does its work, as ``module:name``.
    roles: settings that name the role of a model. The content of the model is part of the identity, its role is not.
    reads_answers: whether its results depend on how answers are read; then ``vold.answers.VERSION`` is part of its
    identity.
    """

    version: int
    config: str
    run: str
    roles: tuple[str, ...] = ()
    reads_answers: bool = False


KINDS: dict[str, Kind] = {
    "traces": Kind(1, "vold.config:TracesConfig", "bench.matrix.stages:run_traces", ("writer",), True),
    "sft": Kind(1, "vold.config:SFTConfig", "bench.matrix.stages:run_sft", ("traces",)),
    "rl": Kind(2, "vold.config:RLConfig", "bench.matrix.stages:run_rl", ("teacher",), True),
    "eval": Kind(2, "bench.evaluation.config:EvalConfig", "bench.matrix.stages:run_eval", (), True),
}


def locate(reference: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def config_class(kind: str) -> type[BaseModel]:
    """The configuration model of a kind."""
    return locate(KINDS[kind].config)


def settings(kind: str) -> tuple[str, ...]:
    """Every setting of a kind as a dotted name that starts with the kind (``rl.distill.weight``)."""
    return tuple(f"{kind}.{name}" for name in _leaves(KINDS[kind].config))


def execution_settings() -> tuple[str, ...]:
    """Every setting of ``Execution`` as a dotted name (``vllm.max_length``)."""
    return _leaves("vold.execution:Execution")


@cache
def _leaves(reference: str) -> tuple[str, ...]:
    return tuple(_walk(locate(reference)))


def _walk(model: type[BaseModel]) -> list[str]:
    names = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{leaf}" for leaf in _walk(inner)]
        else:
            names.append(name)
    return names


def run_traces(spec: StageSpec, store: Store, work: Path, progress: Progress) -> None:
    from vold.config import TracesConfig
    from vold.execution import Execution
    from vold.training.traces import write_traces

    write_traces(
        TracesConfig.model_validate(spec.config), writer=spec.path("writer", store),
        prompts=spec.data("prompts", store), run=work, seed=spec.seed,
        execution=Execution.model_validate(spec.execution), progress=progress,
    )  # fmt: skip


def run_sft(spec: StageSpec, store: Store, work: Path, progress: Progress) -> None:
    from vold.config import SFTConfig
    from vold.execution import Execution
    from vold.training.sft import train_sft

    execution = Execution.model_validate(spec.execution)
    if distribute(execution, spec.run, (spec, store, work), work, progress):
        return
    train_sft(
        SFTConfig.model_validate(spec.config), student=spec.path("student", store),
        traces=spec.data("traces", store), run=work, seed=spec.seed,
        execution=execution, progress=progress,
    )  # fmt: skip


def run_rl(spec: StageSpec, store: Store, work: Path, progress: Progress) -> None:
    from vold.config import RLConfig
    from vold.execution import Execution
    from vold.training.rl import train_rl

    execution = Execution.model_validate(spec.execution)
    if distribute(execution, spec.run, (spec, store, work), work, progress):
        return
    train_rl(
        RLConfig.model_validate(spec.config), student=spec.path("student", store),
        teacher=spec.path("teacher", store) if "teacher" in spec.locations else None,
        validation=spec.data("validation", store) if "validation" in spec.locations else None,
        prompts=spec.data("prompts", store), run=work, seed=spec.seed,
        execution=execution, progress=progress,
    )  # fmt: skip


def run_eval(
    spec: StageSpec, store: Store, work: Path, progress: Progress, engines: "EnginePool | None" = None
) -> None:
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.run import evaluate
    from vold.execution import Execution

    data = {name.removeprefix("data."): spec.path(name, store) for name in spec.locations if name.startswith("data.")}
    evaluate(
        EvalConfig.model_validate(spec.config), model=spec.path("model", store), data=data, run=work,
        seed=spec.seed, execution=Execution.model_validate(spec.execution), progress=progress, engines=engines,
    )  # fmt: skip
