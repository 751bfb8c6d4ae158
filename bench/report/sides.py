"""The two sides of a contrast in words: arms, or the gains of arms over other arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.report.model import Arm, Contrast, Side
from bench.report.numbers import points
from bench.report.style import axis_label

CONDITIONS = {"cold_start": "after the cold start"}
"""How a sentence names the level of an axis; for other axes, ``with`` and the name of the axis."""


def arms_of(contrast: Contrast) -> tuple[str, ...]:
    """The arms of both sides, then for gains the arms that they are over: the arguments of ``paired_difference``."""
    arms = (contrast.test.arm, contrast.against.arm)
    if contrast.test.over is None or contrast.against.over is None:
        return arms
    return (*arms, contrast.test.over, contrast.against.over)


def side_in_words(side: Side) -> str:
    """The name of an arm, or ``ARM over ARM`` for a gain."""
    return side.arm if side.over is None else f"{side.arm} over {side.over}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a contrast compares, in words.

    test, against: both sides, as in ``side_in_words``.
    gain, condition, levels: for gains whose sides differ in one axis, the gain that they have in common, the axis, and
    its level on each side. Empty otherwise.
    """

    test: str
    against: str
    of_gains: bool = False
    gain: str = ""
    condition: str = ""
    levels: tuple[str, str] = ("", "")

    @property
    def pair(self) -> str:
        """Both sides as a noun."""
        if self.of_gains:
            return f"the gain of {self.test}, less the gain of {self.against}"
        return f"{self.test} over {self.against}"

    def label(self, limit: int = 24) -> str:
        """A name for an axis, with at most ``limit`` characters per side."""
        if self.gain:
            return f"{axis_label(self.gain, 2 * limit)}: {' − '.join(axis_label(x, limit) for x in self.levels)}"
        return f"{axis_label(self.test, limit)} − {axis_label(self.against, limit)}"

    def result(self, difference: float) -> str:
        """The sentence of a result, up to the interval."""
        if not self.of_gains:
            return f"{self.pair}: {points(difference)} points"
        size = f"{points(abs(difference), signed=False)} points {'larger' if difference >= 0 else 'smaller'}"
        if not self.gain:
            return f"The gain of {self.test} is {size} than the gain of {self.against}"
        first, second = (f"{self.condition} {level}" for level in self.levels)
        return f"The gain of {self.gain} is {size} {first} than {second}"


def comparison(contrast: Contrast, arms: Sequence[Arm]) -> Comparison:
    """The words of a contrast. ``arms``: those of the matrix, with their levels."""
    test, against = side_in_words(contrast.test), side_in_words(contrast.against)
    if contrast.test.over is None or contrast.against.over is None:
        return Comparison(test, against)
    levels = {arm.name: arm.levels for arm in arms}
    first, second, base, other_base = (levels.get(name, {}) for name in arms_of(contrast))
    axes = _differing(first, second)
    gained = _differing(first, base)
    factors = (
        len(axes) == 1
        and gained
        and not set(axes) & set(gained)
        and _differing(base, other_base) == axes
        and _differing(second, other_base) == gained
    )
    if not factors:
        return Comparison(test, against, of_gains=True)
    axis = axes[0]
    return Comparison(
        test,
        against,
        of_gains=True,
        gain=f"{'+'.join(first[a] for a in gained)} over {'+'.join(base[a] for a in gained)}",
        condition=CONDITIONS.get(axis, f"with {axis.replace('_', ' ')}"),
        levels=(first[axis], second[axis]),
    )


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The axes in which two arms have different levels; every axis where one of them has no level."""
    return [axis for axis in {**one, **other} if one.get(axis) != other.get(axis)]
