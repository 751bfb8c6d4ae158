"""Corrections of p-values for their number. A matrix file chooses one by name under ``analysis.correction``.

To add a correction, write its function and add one row to ``CORRECTIONS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALPHA = 0.05
"""The level of the corrected tests."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A way to correct the p-values of several contrasts for their number.

    name: its name in a matrix file.
    header: its name in tables and sentences, in front of a corrected p-value.
    function: returns the corrected p-values in the order of the p-values that it is given.
    strictest: from the number of contrasts, the factor on the level at which the smallest p-value is tested. The power
        of a contrast is given at this level, because it cannot be known beforehand which contrast comes first.
    sentence: says in the methods of a report what was done.
    """

    name: str
    header: str
    function: Callable[[Sequence[float]], list[float]]
    strictest: Callable[[int], float]
    sentence: str


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979): family-wise error <= alpha without further assumptions."""
    count, largest = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min((count - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted


def unchanged(p_values: Sequence[float]) -> list[float]:
    """The p-values, as they are."""
    return list(p_values)


HOLM = Correction(
    "holm", "Holm p", holm, lambda count: 1 / count, "their p-values are corrected for their number by Holm's method"
)
UNCORRECTED = Correction(
    "none", "uncorrected p", unchanged, lambda _: 1.0, "their p-values are not corrected for their number"
)
CORRECTIONS = {correction.name: correction for correction in (HOLM, UNCORRECTED)}
