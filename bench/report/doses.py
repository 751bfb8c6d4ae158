"""Dose curves: arms along a numeric axis, such as the length of the cold start."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.report.model import Arm, ArmSettings, Spec


@dataclass(frozen=True, slots=True)
class DoseCurve:
    """The arms of one numeric axis.

    key: the setting that the axis changes.
    lines: for each combination of the other axes, pairs of dose and arm with ascending dose.
    """

    axis: str
    key: str
    lines: Mapping[str, tuple[tuple[float, str], ...]]


def dose_curves(spec: Spec, settings: ArmSettings) -> list[DoseCurve]:
    """The curves of all axes with three or more numeric doses. A level that skips the stage of the dose has dose 0."""
    return [curve for axis in spec.axes if (curve := _dose_curve(spec, settings, axis)) is not None]


def _dose_curve(spec: Spec, settings: ArmSettings, axis: str) -> DoseCurve | None:
    arms = [arm for arm in spec.arms if axis in arm.levels]
    for key in sorted({key for arm in arms for key in arm.overrides}):
        values = {arm.name: _dose(arm, key, settings) for arm in arms}
        by_level: dict[str, set[float]] = {}
        for arm in arms:
            value = values[arm.name]
            by_level.setdefault(arm.levels[axis], set()).update(() if value is None else (value,))
        # The setting belongs to this axis when each level has one number of its own.
        if any(len(doses) != 1 for doses in by_level.values()):
            continue
        if len(set().union(*by_level.values())) < max(3, len(by_level)):
            continue
        lines: dict[str, list[tuple[float, str]]] = {}
        for arm in arms:
            value = values[arm.name]
            if value is not None:
                others = "+".join(level for name, level in arm.levels.items() if name != axis) or "all"
                lines.setdefault(others, []).append((value, arm.name))
        return DoseCurve(axis, key, {name: tuple(sorted(points)) for name, points in lines.items()})
    return None


def _dose(arm: Arm, key: str, settings: ArmSettings) -> float | None:
    """The resolved number of ``key`` in an arm: 0 where the arm skips the stage, None where it is not a number."""
    stage, *path = key.split(".")
    if stage in arm.skip:
        return 0.0
    value: object = settings.get((arm.name, stage), {})
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
