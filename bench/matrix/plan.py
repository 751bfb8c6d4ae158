"""Plans: the unique stages that a matrix file needs with a profile.

The identity of a stage is its kind, the version of its code, its resolved settings, the content of its inputs and its
seed. Runs that agree on all of these share the stage. For example, a cold start is trained once for all the objectives
that follow it.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.matrix.inputs import Input, InputResolver
from bench.matrix.profile import LoadedProfile, find_profile, load_profile
from bench.matrix.spec import Arm, MatrixSpec, Override, Sampled, check_override, find_matrix, load_spec
from bench.matrix.stages import KINDS, config_class
from bench.matrix.yaml_file import Where
from bench.store import StageSpec, Store, digest
from vold.answers import VERSION
from vold.seeding import derive

# The traces are one data set for all arms, and not drawn again for each training seed.
TRACES_SEED = 0
SAMPLED = "sampled"
"""The second evaluation among the stages of a run; its kind is ``eval`` as well."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a plan. ``needs``: ids of the stages whose results it reads. ``steps``: the unit of its cost."""

    spec: StageSpec
    needs: tuple[str, ...]
    steps: int

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def kind(self) -> str:
        return self.spec.kind


@dataclass(frozen=True, slots=True)
class ArmSeed:
    """One run of an arm: it trains one student with one seed.

    student: the name of the student; empty where models are evaluated as they are.
    seed: a seed of the files. The stages of further students have seeds of their own; see ``stage_seed``.
    stages: the ids of its stages in the order in which they run, by kind. A second evaluation is under ``SAMPLED``.
    """

    arm: str
    student: str
    seed: int
    stages: Mapping[str, str]


@dataclass(slots=True)
class Plan:
    """A matrix file and a profile, resolved for some seeds.

    cells: each arm with each student and each seed.
    stages: the unique stages by id; every stage comes after those that it needs.
    absent: for each missing input, where it is named and how to get it.
    """

    spec: MatrixSpec
    profile: LoadedProfile
    seeds: tuple[int, ...]
    overrides: tuple[Override, ...] = ()
    cells: list[ArmSeed] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    @property
    def students(self) -> tuple[str, ...]:
        """The names of the students."""
        return self.profile.settings.students

    @property
    def changes(self) -> dict[str, list[object]]:
        """What the command line changes in the experiment of the files; empty when it is run in full."""
        seeds = self.profile.settings.seeds or self.spec.seeds
        arms = {cell.arm for cell in self.cells}
        changes: dict[str, list[object]] = {
            "settings": [f"{override.key}={override.value}" for override in self.overrides],
            "arms_left_out": [name for name in self.spec.names if name not in arms],
            "seeds_of_the_file": list(seeds) if set(seeds) != set(self.seeds) else [],
        }
        return {name: values for name, values in changes.items() if values}

    def arms_of(self, stage: str) -> list[str]:
        """The names of the arms that use a stage."""
        return list(dict.fromkeys(cell.arm for cell in self.cells if stage in cell.stages.values()))


def make_plan(
    path: Path,
    store: Store,
    *,
    profile: str = "small",
    seeds: Sequence[int] | None = None,
    overrides: Iterable[Override] = (),
    only: Sequence[str] = (),
) -> Plan:
    """Plan a matrix file.

    path: the file, or the bare name of a bundled one such as ``cold_start``.
    profile: the name or the path of a profile.
    seeds: training seeds instead of those in the files.
    overrides: settings for every arm; a later override of the same setting wins.
    only: the names of the arms to plan; empty: all.

    Raises ConfigurationError naming the place of the mistake and how to fix it.
    """
    path = find_matrix(path)
    spec = load_spec(path)
    loaded = load_profile(find_profile(profile, path))
    for name in only:
        if name not in spec.names:
            raise ConfigurationError(f"--only {name}: no such arm in {path}; {nearest(name, spec.names)}")
    by_key = {override.key: override for override in overrides}
    plan = Plan(spec, loaded, tuple(seeds or loaded.settings.seeds or spec.seeds), tuple(by_key.values()))
    builder = _Builder(plan, store, by_key)
    arms = [arm for arm in spec.arms if not only or arm.name in only]
    for arm, student, seed in itertools.product(arms, range(len(plan.students)), plan.seeds):
        plan.cells.append(builder.cell(arm, student, seed))
    return plan


def stage_seed(seed: int, student: int) -> int:
    """The seed of the stages that train the student at position ``student``; the first student has the seed itself.

    With the same seed, all students would draw the same prompts in the same order. Their results would rise and fall
    together and would not be independent runs.
    """
    return derive(seed, "student", student) if student else seed


def parse_setting(
    text: str, option: str = "--set", check: Callable[[str], str | None] = check_override, form: str = "STAGE.SETTING"
) -> Override:
    """Parse a setting of the command line such as ``rl.steps=10``.

    check: returns what is wrong with a key, or None.
    form: how the option writes a key, for the error message.

    Raises ConfigurationError for a wrong key or a value that is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, equals, value = text.partition("=")
    wrong = check(key) if equals else f"expected the form {form}=VALUE"
    if wrong:
        raise ConfigurationError(f"{option} {text}: {wrong}")
    try:
        return Override(key, YAML(typ="safe", pure=True).load(value), Where(f"{option} {text}"))
    except YAMLError as error:
        raise ConfigurationError(f"{option} {text}: the value is not YAML") from error


def resolve(kind: str, layers: Iterable[Mapping[str, Override]], arm: str) -> BaseModel:
    """The configuration of one stage: the defaults of its class, changed by each layer of overrides in turn.

    A value such as ``50%`` scales the number of the layer below. Raises ConfigurationError naming the override
    that pydantic refuses.
    """
    data = config_class(kind)().model_dump()
    used: dict[str, Override] = {}
    for layer in layers:
        for key, override in layer.items():
            if key.split(".")[0] == kind:
                _put(data, key.split(".")[1:], override)
                used[key] = override
    try:
        return config_class(kind).model_validate(data)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_refusal(kind, arm, used, wrong) for wrong in error.errors())) from error


def _refusal(kind: str, arm: str, used: Mapping[str, Override], wrong: ErrorDetails) -> str:
    key = ".".join([kind, *map(str, wrong["loc"])])
    override = next((used[name] for name in used if key == name or key.startswith(name + ".")), None)
    message = wrong["msg"].removeprefix("Value error, ")
    if override is not None:
        return f"{override.where}: {override.key}: {message}, found {override.value!r}"
    settings = ", ".join(f"{override.key} at {override.where}" for override in used.values())
    return f"{kind} of arm {arm!r}: {message} (set here: {settings or 'nothing'})"


def _put(data: dict[str, Any], parts: Sequence[str], override: Override) -> None:
    """Set one dotted key in nested data; a percentage scales the value that is there."""
    for part in parts[:-1]:
        data = data[part]
    value, below = override.value, data[parts[-1]]
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)%", value) if isinstance(value, str) else None
    if percent is None:
        data[parts[-1]] = value
        return
    if isinstance(below, bool) or not isinstance(below, int | float):
        raise ConfigurationError(f"{override.where}: {override.key}: {value} of {below!r} is not a number")
    scaled = below * float(percent[1]) / 100
    data[parts[-1]] = max(1, round(scaled)) if isinstance(below, int) else scaled


class _Builder:
    """Adds the stages of arms to a plan."""

    def __init__(self, plan: Plan, store: Store, overrides: Mapping[str, Override]) -> None:
        self.plan = plan
        self.overrides = overrides
        self.settings = plan.profile.settings
        self.resolver = InputResolver(store, plan.profile.path.parent)
        self.inputs: dict[tuple[str, ...], Input] = {}

    def cell(self, arm: Arm, student: int, seed: int) -> ArmSeed:
        """Add the stages of one run of an arm: traces and SFT, RL and evaluation, unless the arm skips them.

        student: the position of the student.
        """
        for key in self.overrides.keys() & arm.overrides.keys():
            raise ConfigurationError(f"{self.overrides[key].where}: arm {arm.name!r} sets {key!r} itself")
        stages: dict[str, str] = {}
        own_seed = stage_seed(seed, student)
        model = self._model("student", student)
        if "sft" not in arm.skip:
            sft = self._config("sft", arm)
            if sft.traces in self.settings.data.written:
                traces = self._data("written", sft.traces)
            else:
                stages["traces"] = self._traces(arm, sft.traces, student).id
                traces = Input(stages["traces"], f"{stages['traces']}/out/traces.jsonl")
            stages["sft"] = self._add("sft", sft, {"student": model, "traces": traces}, own_seed).id
            model = Input(stages["sft"], f"{stages['sft']}/out")
        if "rl" not in arm.skip:
            stages["rl"] = self._rl(arm, model, student, own_seed).id
            model = Input(stages["rl"], f"{stages['rl']}/out")
        stages["eval"] = self._eval(arm, model, own_seed).id
        if self.plan.spec.analysis.sampled is not None:
            stages[SAMPLED] = self._sampled(arm, model, own_seed, self.plan.spec.analysis.sampled).id
        return ArmSeed(arm.name, self.plan.students[student], seed, stages)

    def _config(self, kind: str, arm: Arm, last: Mapping[str, Override] | None = None) -> Any:
        return resolve(kind, (self.plan.profile.overrides, self.overrides, arm.overrides, last or {}), arm.name)

    def _traces(self, arm: Arm, writer: str, student: int) -> Stage:
        origin = arm.overrides.get("sft.traces") or self.overrides.get("sft.traces")
        where = origin.where if origin else self.plan.profile.where("models")
        config = self._config("traces", arm, {"traces.writer": Override("traces.writer", writer, where)})
        inputs = {"writer": self._model(writer, student, where), "prompts": self._data("traces")}
        return self._add("traces", config, inputs, TRACES_SEED)

    def _rl(self, arm: Arm, model: Input, student: int, seed: int) -> Stage:
        config = self._config("rl", arm)
        inputs = {"student": model, "prompts": self._data("rl")}
        if config.distill.uses_teacher:
            override = arm.overrides.get("rl.teacher") or self.overrides.get("rl.teacher")
            inputs["teacher"] = self._model(config.teacher, student, override.where if override else None)
        if self.settings.data.validation and config.validate_every:
            inputs["validation"] = self._data("validation")
        return self._add("rl", config, inputs, seed)

    def _eval(self, arm: Arm, model: Input, seed: int) -> Stage:
        config = self._config("eval", arm)
        inputs = {"model": model, **self._problems(self.settings.data.eval)}
        # Greedy responses do not depend on the seed, so arms that share a model share its evaluation.
        return self._add("eval", config, inputs, seed if config.temperature > 0 else 0)

    def _sampled(self, arm: Arm, model: Input, seed: int, sampled: Sampled) -> Stage:
        """The second evaluation of an arm, on those primary benchmarks that the first one asks."""
        spec = self.plan.spec
        asked = self._config("eval", arm).benchmarks or self.settings.data.eval
        benchmarks = [name for name in spec.analysis.primary.over if name in self.settings.data.eval and name in asked]
        where = Where(f"{spec.path}: analysis.sampled")
        if not benchmarks:
            names = ", ".join(spec.analysis.primary.over)
            raise ConfigurationError(
                f"{where}: arm {arm.name!r} is asked none of {names}; add their data to data.eval of the profile"
            )
        changes = {"benchmarks": None, "samples": sampled.samples, "temperature": sampled.temperature}
        layer = {f"eval.{name}": Override(f"eval.{name}", value, where) for name, value in changes.items()}
        return self._add("eval", self._config("eval", arm, layer), {"model": model, **self._problems(benchmarks)}, seed)

    def _problems(self, benchmarks: Iterable[str]) -> dict[str, Input]:
        inputs = {}
        for benchmark in benchmarks:
            source, where = self.settings.data.eval[benchmark], self.plan.profile.where("data", "eval", benchmark)
            make = partial(self.resolver.problems, benchmark, source, where)
            inputs[f"data.{benchmark}"] = self._once(("problems", benchmark), make)
        return inputs

    def _model(self, role: str, student: int, where: Where | None = None) -> Input:
        if role not in self.settings.models:
            position = where or self.plan.profile.where("models")
            raise ConfigurationError(f"{position}: no model role {role!r}; {nearest(role, self.settings.models)}")
        source, position = self.settings.model(role, student), self.plan.profile.where("models", role)
        return self._once(("model", source), partial(self.resolver.model, source, position))

    def _data(self, *key: str) -> Input:
        source: Any = self.settings.data.model_dump()
        for part in key:
            source = source[part]
        position = self.plan.profile.where("data", *key)
        return self._once(("data", source), partial(self.resolver.training_data, source, position))

    def _once(self, key: tuple[str, ...], make: Callable[[], Input]) -> Input:
        if key not in self.inputs:
            self.inputs[key] = make()
            if self.inputs[key].absent:
                self.plan.absent.append(self.inputs[key].absent)
        return self.inputs[key]

    def _add(self, kind: str, config: BaseModel, inputs: Mapping[str, Input], seed: int) -> Stage:
        stage = make_stage(kind, config, inputs, seed, self.settings.execution.model_dump(mode="json"))
        return self.plan.stages.setdefault(stage.id, stage)


def make_stage(
    kind: str, config: BaseModel, inputs: Mapping[str, Input], seed: int, execution: Mapping[str, object]
) -> Stage:
    """A stage with its identity and id.

    seed: part of the identity.
    execution: how the stage runs; not part of the identity, except for the dtype of an evaluation.
    """
    full = config.model_dump(mode="json")
    identity = {
        "kind": kind,
        "version": KINDS[kind].version,
        # A role is only a name in the profile; the content of its model is among the inputs.
        "config": {name: value for name, value in full.items() if name not in KINDS[kind].roles},
        "inputs": {name: value.identity for name, value in inputs.items()},
        "seed": seed,
    }
    if KINDS[kind].reads_answers:
        identity["answers"] = VERSION
    dtype = execution.get("dtype", "float32")
    if kind == "eval" and dtype != "float32":  # the only setting of execution that changes responses
        identity["dtype"] = dtype
    locations = {name: value.location for name, value in inputs.items()}
    name = f"{kind}-{digest(identity)[:12]}"
    spec = StageSpec(name, kind, identity, full, locations, seed, KINDS[kind].run, dict(execution))
    needs = tuple(v.identity for v in inputs.values() if v.identity.partition("-")[0] in KINDS)
    return Stage(spec, needs, full.get("steps", 1))
