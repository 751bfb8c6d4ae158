"""Profiles: the models, data, budgets and hardware that a matrix runs with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from bench.bundled import PROFILES
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.matrix.spec import Override, check_override
from bench.matrix.stages import KINDS
from bench.matrix.stages import settings as stage_settings
from bench.matrix.yaml_file import SUFFIX, Where, YamlFile, is_bare_name
from vold.config import Strict
from vold.execution import Execution


class Data(Strict):
    """The sources of prompts and problems.

    traces: prompts for which the teacher writes traces: ``smallworld/SET?n=N`` or a source of ``vold.data.sources``.
    rl: prompts for RL, from the same kinds of source.
    eval: for each benchmark ``smallworld/SPLIT?n=N`` or a directory with the benchmark's own files.
    written: for a role, traces that already exist. The cold start then imitates these, and no traces are written.
    validation: prompts for the regular validation during RL.
    """

    traces: str
    rl: str
    eval: dict[str, str] = Field(min_length=1)
    written: dict[str, str] = Field(default_factory=dict)
    validation: str | None = None


class Hardware(Strict):
    """The machine. ``slots``: stages that run in parallel; None: one per CPU, or only one on a machine with GPUs."""

    device: str = "CPU"
    gpus: int = Field(default=0, ge=0)
    slots: int | None = Field(default=None, ge=1)


class Cost(Strict):
    """Expected cost in seconds of ``unit``: per stage for traces and eval, per training step for sft and rl."""

    unit: Literal["CPU", "GPU"] = "CPU"
    source: str
    traces: float = Field(ge=0)
    sft: float = Field(ge=0)
    rl: float = Field(ge=0)
    eval: float = Field(ge=0)


class Profile(Strict):
    """The settings of a profile file.

    models: the source of each role's model; for ``student`` also a list, and then every seed trains every student. A
    source is ``smallworld/NAME``, a path that begins with ``.``, ``/`` or ``~``, or ``OWNER/NAME[@REVISION]`` on the
    hub.
    """

    schema_: Literal["vold-bench/profile@1"] = Field(alias="schema")
    about: str
    seeds: tuple[int, ...] | None = None
    models: dict[str, str | tuple[str, ...]]
    data: Data
    stages: dict[str, dict[str, object]] = Field(default_factory=dict)
    execution: Execution = Execution()
    hardware: Hardware = Hardware()
    cost: Cost

    @field_validator("models")
    @classmethod
    def _has_both_sides(cls, models: dict[str, str | tuple[str, ...]]) -> dict[str, str | tuple[str, ...]]:
        for role in ("student", "teacher"):
            if role not in models:
                raise ValueError(f"the role {role!r} is missing")
        for role, sources in models.items():
            if role != "student" and not isinstance(sources, str):
                raise ValueError(f"{role}: one model is expected; only the student may be a list")
        students = models["student"]
        if not students or (isinstance(students, tuple) and len(set(students)) < len(students)):
            raise ValueError("student: expected one model or a list of different ones")
        return models

    @property
    def students(self) -> tuple[str, ...]:
        """A name for each student: the last part of its source, or the whole source where two students share that."""
        sources = self.models["student"]
        sources = (sources,) if isinstance(sources, str) else sources
        names = tuple(source.partition("@")[0].rstrip("/").rpartition("/")[2] for source in sources)
        return names if len(set(names)) == len(names) else sources

    def model(self, role: str, student: int) -> str:
        """The source of ``role`` for the student at position ``student``; raises KeyError for an unknown role."""
        sources = self.models[role]
        return sources if isinstance(sources, str) else sources[student]


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A profile that was read from a file.

    overrides: its settings of stages by dotted key, with their positions.
    sources: its own file, then the files that it extends.
    """

    name: str
    path: Path
    settings: Profile
    overrides: Mapping[str, Override]
    sources: tuple[YamlFile, ...]

    def where(self, *loc: str | int) -> Where:
        """The position of a key, in the profile itself or in one that it extends."""
        source = next((source for source in self.sources if source.has(loc)), self.sources[0])
        return source.where(loc)


def find_profile(name: str, matrix: Path) -> Path:
    """The file of a profile, given as a path or as a name.

    A name means a file in ``profiles/`` next to the matrix file, or else a bundled profile. Raises ConfigurationError
    when there is neither.
    """
    if not is_bare_name(name):
        return Path(name)
    folders = (matrix.parent / "profiles", PROFILES)
    path = _profile_in(folders, name)
    if path is None:
        raise ConfigurationError(f"{folders[0]}: no profile {name!r}; {nearest(name, _names_in(folders))}")
    return path


def _profile_in(folders: Iterable[Path], name: str) -> Path | None:
    paths = (folder / f"{name}{SUFFIX}" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _names_in(folders: Iterable[Path]) -> list[str]:
    return [path.stem for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]


def load_profile(path: Path) -> LoadedProfile:
    """Read and check a profile and those that it extends; raises ConfigurationError naming file, line and column."""
    sources, data = _chain(path, ())
    settings = sources[0].validate(Profile, data, sources[1:])
    loaded = LoadedProfile(path.stem, path, settings, {}, sources)
    overrides = {}
    for kind, values in settings.stages.items():
        if kind not in KINDS:
            raise ConfigurationError(f"{loaded.where('stages', kind)}: unknown stage {kind!r}; {nearest(kind, KINDS)}")
        for parts, value in _flatten(values, (kind,)):
            key, where = ".".join(parts), loaded.where("stages", *parts)
            wrong = check_override(key)
            if wrong:
                raise ConfigurationError(f"{where}: {wrong}")
            overrides[key] = Override(key, value, where)
    return LoadedProfile(path.stem, path, settings, overrides, sources)


def _chain(path: Path, descendants: tuple[Path, ...]) -> tuple[tuple[YamlFile, ...], dict[str, object]]:
    """The files of a profile and of those that it extends, and their merged data."""
    source = YamlFile(path)
    if path.resolve() in descendants:
        source.fail(("extends",), "this profile extends itself")
    data = {key: value for key, value in source.data.items() if key != "extends"}
    if "extends" not in source.data:
        return (source,), data
    name, folders = str(source.data["extends"]), (path.parent, PROFILES)
    parent = _profile_in(folders, name)
    if parent is None:
        source.fail(("extends",), f"no profile {name!r}; {nearest(name, _names_in(folders))}")
    sources, inherited = _chain(parent, (*descendants, path.resolve()))
    return (source, *sources), _merge(inherited, data)


def _merge(below: object, above: object) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def _flatten(values: Mapping[str, Any], prefix: tuple[str, ...]) -> list[tuple[tuple[str, ...], object]]:
    """Nested settings as (path, value); a mapping that is the value of one setting is not split."""
    rows: list[tuple[tuple[str, ...], object]] = []
    for name, value in values.items():
        path = (*prefix, str(name))
        nested = isinstance(value, dict) and ".".join(path) not in stage_settings(prefix[0])
        rows += _flatten(value, path) if nested else [(path, value)]
    return rows
