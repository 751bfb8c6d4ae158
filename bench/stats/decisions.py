"""Verdicts from p-values, and how many problems a test needs."""

from math import ceil
from typing import Literal

from bench.stats.corrections import ALPHA
from bench.stats.distributions import normal_quantile

ContrastVerdict = Literal["better", "worse", "not resolved"]


def contrast_verdict(difference: float, adjusted_p: float, alpha: float = ALPHA) -> ContrastVerdict:
    """Better or worse when the adjusted test rejects equality at ``alpha``, otherwise not resolved."""
    if adjusted_p >= alpha or difference == 0:
        return "not resolved"
    return "better" if difference > 0 else "worse"


def items_needed(margin: float, sd: float, power: float = 0.8, alpha: float = ALPHA) -> int:
    """The number of problems at which a one-sided test against ``margin`` has ``power`` when nothing changed.

    sd: standard deviation of one problem's score, in the unit of ``margin``.
    Raises ValueError for a margin that is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"the margin must be above 0: {margin=}")
    z = normal_quantile(1 - alpha / 2) + normal_quantile(power)
    return max(2, ceil((z * sd / margin) ** 2))
