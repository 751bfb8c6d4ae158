"""Matrix files: a question, the arms that answer it, and the pre-registered analysis.

A matrix file describes only the method. A profile (``bench.matrix.profile``) adds models, data, steps and hardware.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bench.benchmarks.registry import BENCHMARKS, pooled
from bench.bundled import ABLATIONS
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.matrix.stages import KINDS, execution_settings, settings
from bench.matrix.yaml_file import SUFFIX, Where, YamlFile, is_bare_name
from bench.stats.corrections import CORRECTIONS
from vold.config import Strict

SKIPPABLE = ("sft", "rl")


def _points(value: object) -> object:
    """Convert ``2.0pp`` (percentage points) to a share, 0.02."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*pp\s*", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected percentage points such as 2.0pp")
    return float(match[1]) / 100


Points = Annotated[float, BeforeValidator(_points)]


def _correction_name(name: str) -> str:
    if name not in CORRECTIONS:
        raise ValueError(f"expected one of {', '.join(CORRECTIONS)}")
    return name


CorrectionName = Annotated[str, AfterValidator(_correction_name)]


class Primary(Strict):
    """The number that the contrasts compare."""

    metric: Literal["accuracy"] = "accuracy"
    over: tuple[str, ...] = tuple(pooled(BENCHMARKS))
    aggregate: Literal["macro", "micro"] = "macro"


class Side(Strict):
    """One side of a contrast: an arm, or with ``over`` the gain of that arm over another.

    A matrix file writes an arm as its name, and a gain as ``{arm: NAME, over: NAME}``.
    """

    arm: str
    over: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        if isinstance(value, str):
            return {"arm": value}
        if not isinstance(value, dict) or value.keys() == {"arm"}:
            raise ValueError("expected the name of an arm, or the gain of an arm as {arm: NAME, over: NAME}")
        return value


class Contrast(Strict):
    """A pre-registered comparison of two arms, or of the gains of two arms over two others.

    min_effect: the smallest difference that matters, as a share (0.02: two points).
    expected_effect: the difference that tuning leads to expect; the number of seeds is planned for it, or otherwise for
    min_effect.
    planned_sd, planned_item_error: as in ``Analysis``, for this contrast alone.
    claim: what the paper says about the comparison.
    expect: the direction of the claim.
    """

    id: str
    test: Side
    against: Side
    min_effect: Points = 0.0
    expected_effect: Points | None = None
    planned_sd: Points | None = None
    planned_item_error: Points | None = None
    claim: str = ""
    expect: Literal["better", "worse", "not_better", "not_worse"] = "better"


class Sampled(Strict):
    """A second evaluation of every arm on the primary benchmarks, with sampled responses.

    Its accuracy stands next to the primary number, is never part of it, and its contrasts are not corrected.
    """

    samples: int = Field(default=2, ge=1)
    temperature: float = Field(default=1.0, gt=0)


class Analysis(Strict):
    primary: Primary = Primary()
    sampled: Sampled | None = None
    contrasts: tuple[Contrast, ...] = ()
    correction: CorrectionName = "holm"
    planned_sd: Points | None = Field(
        default=None,
        description="Standard deviation of a paired difference over the seeds of one student, from tuning runs. "
        "`--plan` then says which differences the contrasts find.",
    )
    planned_item_error: Points = Field(
        default=0.0,
        description="Standard error of a paired difference that the choice of problems leaves, however many seeds are "
        "run.",
    )
    clean_of: tuple[str, ...] = Field(
        default=(),
        description="Results of `data audit`, as paths relative to the matrix file. The report then also shows scores "
        "on the clean problems alone.",
    )


class _Include(Strict):
    name: str
    extends: dict[str, str] = Field(default_factory=dict)
    skip: tuple[str, ...] = ()
    set: dict[str, object] = Field(default_factory=dict)
    because: str = ""


class _Product(Strict):
    product: tuple[str, ...] = ()
    exclude: tuple[dict[str, str], ...] = ()
    include: tuple[_Include, ...] = ()


class _File(Strict):
    schema_: Literal["vold-bench/matrix@1"] = Field(alias="schema")
    name: str
    question: str
    seeds: tuple[int, ...] = Field(min_length=1)
    axes: dict[str, dict[str, dict[str, object]]] = Field(default_factory=dict)
    matrix: _Product
    analysis: Analysis = Analysis()


@dataclass(frozen=True, slots=True)
class Override:
    """A new value for one setting of a stage. ``key`` is dotted (``rl.distill.weight``)."""

    key: str
    value: object
    where: Where


@dataclass(frozen=True, slots=True)
class Arm:
    """One recipe. ``levels``: its level on each axis; empty for an arm from ``matrix.include``."""

    name: str
    skip: frozenset[str] = frozenset()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    because: str = ""


@dataclass(frozen=True, slots=True)
class MatrixSpec:
    """A checked matrix file.

    axes: the levels of each axis, in the order of the file.
    excluded: for each excluded combination, why.
    """

    name: str
    question: str
    seeds: tuple[int, ...]
    axes: Mapping[str, tuple[str, ...]]
    arms: tuple[Arm, ...]
    excluded: Mapping[str, str]
    analysis: Analysis
    path: Path

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(arm.name for arm in self.arms)


def find_matrix(path: Path) -> Path:
    """The path itself, or the bundled matrix file that a bare name such as ``cold_start`` means."""
    if not is_bare_name(str(path)) or path.is_file():
        return path
    bundled = ABLATIONS / f"{path}{SUFFIX}"
    if not bundled.is_file():
        names = [file.stem for file in ABLATIONS.glob(f"*{SUFFIX}")]
        raise ConfigurationError(
            f"{path}: no such file, and no bundled matrix of this name; {nearest(str(path), names)}"
        )
    return bundled


def load_spec(path: Path) -> MatrixSpec:
    """Read and check a matrix file; raises ConfigurationError naming file, line and column."""
    source = YamlFile(path)
    _check_axes(source)
    file = source.validate(_File)
    source.check_name(file.name, ("name",))
    if len(set(file.seeds)) != len(file.seeds) or min(file.seeds) < 0:
        source.fail(("seeds",), "seeds must be different numbers from 0")
    levels = _levels(source, file)
    arms, excluded = _product(source, file, levels)
    arms += [_included(source, file, levels, index) for index in range(len(file.matrix.include))]
    _check_arms(source, file, arms)
    return MatrixSpec(
        name=file.name, question=file.question, seeds=file.seeds, arms=tuple(arms), excluded=excluded,
        axes={axis: tuple(names) for axis, names in file.axes.items()}, analysis=_analysis(source, file), path=path,
    )  # fmt: skip


def _analysis(source: YamlFile, file: _File) -> Analysis:
    """The analysis with full paths of the audits. A missing audit is an error now, and not after the training."""
    paths = [source.path.parent / name for name in file.analysis.clean_of]
    for index, path in enumerate(paths):
        if not path.is_file():
            loc = ("analysis", "clean_of", index)
            source.fail(loc, f"{path}: no such file; write it with `vold-bench data audit`")
    return file.analysis.model_copy(update={"clean_of": tuple(map(str, paths))})


def check_override(key: str) -> str | None:
    """What is wrong with the name of a stage's setting; None if it is right."""
    if key == "traces.writer":
        return "the writer of traces follows from 'sft.traces'; set that"
    valid = [name for kind in KINDS for name in settings(kind)]
    return None if key in valid else f"unknown setting {key!r}; {nearest(key, valid)}"


def check_execution(key: str) -> str | None:
    """What is wrong with the name of a setting of ``Execution``; None if it is right."""
    valid = execution_settings()
    return None if key in valid else f"unknown setting {key!r}; {nearest(key, valid)}"


def _check_axes(source: YamlFile) -> None:
    """Check the names of axes and levels first, because a boolean as a name would lead to a confusing type error."""
    axes = source.data.get("axes")
    for axis, levels in axes.items() if isinstance(axes, dict) else ():
        source.check_name(axis, ("axes", axis))
        for level in levels if isinstance(levels, dict) else ():
            source.check_name(level, ("axes", axis, level))


def _overrides(source: YamlFile, values: Mapping[str, object], loc: tuple[str | int, ...]) -> dict[str, Override]:
    for key in values:
        wrong = check_override(str(key))
        if wrong:
            source.fail((*loc, key), wrong)
    return {key: Override(key, value, source.where((*loc, key))) for key, value in values.items()}


def _skips(source: YamlFile, names: object, loc: tuple[str | int, ...]) -> frozenset[str]:
    if not isinstance(names, list | tuple):
        source.fail(loc, f"skip: expected a list of stages such as [sft], found {names!r}")
    for index, name in enumerate(names):
        if name not in SKIPPABLE:
            source.fail((*loc, index), f"skip: {name!r} cannot be skipped; {nearest(str(name), SKIPPABLE)}")
    return frozenset(names)


def _levels(source: YamlFile, file: _File) -> dict[tuple[str, str], Arm]:
    """Every level of every axis as a partial arm."""
    parts = {}
    for axis, names in file.axes.items():
        for name, body in names.items():
            loc = ("axes", axis, name)
            skip = _skips(source, body["skip"], (*loc, "skip")) if "skip" in body else frozenset()
            values = {key: value for key, value in body.items() if key != "skip"}
            parts[axis, name] = Arm(name, skip, _overrides(source, values, loc), {axis: name})
    return parts


def _join(source: YamlFile, name: str, parts: list[Arm], loc: tuple[str | int, ...]) -> Arm:
    """Join levels of several axes into one arm; two of them may not change the same setting."""
    merged: dict[str, Override] = {}
    for part in parts:
        for key, override in part.overrides.items():
            if key in merged:
                source.fail(loc, f"{name}: {key!r} is set twice, at {merged[key].where} and {override.where}")
            merged[key] = override
    skip = frozenset().union(*(part.skip for part in parts))
    return Arm(name, skip, merged, {axis: level for part in parts for axis, level in part.levels.items()})


def _check_levels(source: YamlFile, file: _File, levels: Mapping[str, str], loc: tuple[str | int, ...]) -> None:
    """Refuse an axis or level that the file does not define."""
    for axis, level in levels.items():
        if axis not in file.axes:
            source.fail((*loc, axis), f"unknown axis {axis!r}; {nearest(axis, file.axes)}")
        if level not in file.axes[axis]:
            source.fail((*loc, axis), f"unknown level {level!r} of {axis}; {nearest(level, file.axes[axis])}")


def _product(source: YamlFile, file: _File, levels: Mapping[tuple[str, str], Arm]) -> tuple[list[Arm], dict[str, str]]:
    """The arms of the product of axes without the excluded combinations, and the reason of each exclusion."""
    for index, axis in enumerate(file.matrix.product):
        if axis not in file.axes:
            source.fail(("matrix", "product", index), f"unknown axis {axis!r}; {nearest(axis, file.axes)}")
    rules = []
    for index, rule in enumerate(file.matrix.exclude):
        cell = {axis: level for axis, level in rule.items() if axis != "because"}
        _check_levels(source, file, cell, ("matrix", "exclude", index))
        rules.append((cell, rule.get("because", "")))
    arms, excluded, used = [], {}, set()
    axes = file.matrix.product
    for combination in itertools.product(*(file.axes[axis] for axis in axes)) if axes else ():
        cell, name = dict(zip(axes, combination, strict=True)), "+".join(combination)
        index = next((i for i, (rule, _) in enumerate(rules) if rule.items() <= cell.items()), None)
        if index is None:
            arms.append(_join(source, name, [levels[pair] for pair in cell.items()], ("matrix", "product")))
        else:
            used.add(index)
            excluded[name] = rules[index][1]
    for index in set(range(len(rules))) - used:
        source.fail(("matrix", "exclude", index), "this excludes no cell of the product")
    return arms, excluded


def _included(source: YamlFile, file: _File, levels: Mapping[tuple[str, str], Arm], index: int) -> Arm:
    entry, loc = file.matrix.include[index], ("matrix", "include", index)
    source.check_name(entry.name, (*loc, "name"))
    _check_levels(source, file, entry.extends, (*loc, "extends"))
    base = _join(source, entry.name, [levels[pair] for pair in entry.extends.items()], (*loc, "extends"))
    skip = base.skip | _skips(source, entry.skip, (*loc, "skip"))
    overrides = {**base.overrides, **_overrides(source, entry.set, (*loc, "set"))}
    return Arm(entry.name, skip, overrides, {}, entry.because)


def _check_arms(source: YamlFile, file: _File, arms: list[Arm]) -> None:
    names = [arm.name for arm in arms]
    if not names:
        source.fail(("matrix",), "there is no arm; add matrix.product or matrix.include")
    for index, entry in enumerate(file.matrix.include):
        if names.count(entry.name) > 1:
            source.fail(("matrix", "include", index, "name"), f"there are two arms with the name {entry.name!r}")
    for arm in arms:
        for key, override in arm.overrides.items():
            kind = key.split(".")[0]
            if kind in arm.skip:
                raise ConfigurationError(f"{override.where}: arm {arm.name!r} sets {key!r} but skips {kind!r}")
    for index, contrast in enumerate(file.analysis.contrasts):
        loc = ("analysis", "contrasts", index)
        _check_contrast(source, contrast, names, loc)
        if [c.id for c in file.analysis.contrasts].count(contrast.id) > 1:
            source.fail((*loc, "id"), f"there are two contrasts with the id {contrast.id!r}")
    for index, name in enumerate(file.analysis.primary.over):
        if name not in BENCHMARKS:
            loc = ("analysis", "primary", "over", index)
            source.fail(loc, f"unknown benchmark {name!r}; {nearest(name, BENCHMARKS)}")


def _check_contrast(source: YamlFile, contrast: Contrast, names: list[str], loc: tuple[str | int, ...]) -> None:
    """Refuse unknown arms, an arm next to a gain, and arms that cancel."""
    for key, side in (("test", contrast.test), ("against", contrast.against)):
        for part, name in (("arm", side.arm), ("over", side.over)):
            if name is not None and name not in names:
                source.fail((*loc, key, part), f"unknown arm {name!r}; {nearest(name, names)}")
        if side.over == side.arm:
            source.fail((*loc, key), f"the gain of {side.arm!r} over itself is 0; name two arms")
    test, against = contrast.test, contrast.against
    if (test.over is None) != (against.over is None):
        source.fail((*loc, "against"), "one side is an arm and the other a gain; both must be arms, or both gains")
    wrong = None
    if test == against:
        wrong = "both sides are the same, so their difference is 0"
    elif test.over is not None and test.arm == against.arm:
        wrong = f"{test.arm!r} is on both sides and cancels; register test: {against.over}, against: {test.over}"
    elif test.over is not None and test.over == against.over:
        wrong = f"{test.over!r} is on both sides and cancels; register test: {test.arm}, against: {against.arm}"
    elif test.over == against.arm and test.arm == against.over:
        wrong = f"this is twice a single contrast; register test: {test.arm}, against: {against.arm}"
    if wrong:
        source.fail((*loc, "against"), wrong)
