"""Arms along a numeric axis, such as the length of the cold start: the points of a dose curve."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.report.model import Arm, ArmSettings, Spec


@dataclass(frozen=True, slots=True)
class Dose:
    """``lines`` maps each combination of the other axes to its (x, arm), x ascending; ``key`` is the setting."""

    axis: str
    key: str
    lines: Mapping[str, tuple[tuple[float, str], ...]]


def find(spec: Spec, settings: ArmSettings) -> list[Dose]:
    """Axes with three or more numeric doses. A level that skips the dose's stage is a dose of 0."""
    return [dose for axis in spec.axes if (dose := _dose(spec, settings, axis)) is not None]


def _dose(spec: Spec, settings: ArmSettings, axis: str) -> Dose | None:
    arms = [arm for arm in spec.arms if axis in arm.levels]
    for key in sorted({key for arm in arms for key in arm.overrides}):
        values = {arm.name: _value(arm, key, settings) for arm in arms}
        by_level: dict[str, set[float]] = {}
        for arm in arms:
            value = values[arm.name]
            by_level.setdefault(arm.levels[axis], set()).update(() if value is None else (value,))
        # The setting belongs to this axis when each level has one number of its own.
        if any(len(found) != 1 for found in by_level.values()):
            continue
        if len({next(iter(found)) for found in by_level.values()}) < max(3, len(by_level)):
            continue
        lines: dict[str, list[tuple[float, str]]] = {}
        for arm in arms:
            value = values[arm.name]
            if value is not None:
                rest = "+".join(level for name, level in arm.levels.items() if name != axis) or "all"
                lines.setdefault(rest, []).append((value, arm.name))
        return Dose(axis, key, {name: tuple(sorted(points)) for name, points in lines.items()})
    return None


def _value(arm: Arm, key: str, settings: ArmSettings) -> float | None:
    """The resolved number of ``key`` in an arm; 0 where its stage is skipped; None where it is no number."""
    stage, *path = key.split(".")
    if stage in arm.skip:
        return 0.0
    found: Any = settings.get((arm.name, stage), {})
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
