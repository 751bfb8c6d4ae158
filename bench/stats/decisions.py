"""Verdicts from p-values, and how many seeds or problems a test needs."""

from math import ceil
from typing import Literal

from bench.stats.distributions import noncentral_t_tail, normal_quantile, t_quantile

ContrastVerdict = Literal["better", "worse", "not resolved"]
ALPHA = 0.05


def contrast_verdict(difference: float, adjusted_p: float, alpha: float = ALPHA) -> ContrastVerdict:
    """Better or worse when the adjusted test rejects equality at ``alpha``, otherwise not resolved."""
    if adjusted_p >= alpha or difference == 0:
        return "not resolved"
    return "better" if difference > 0 else "worse"


def seeds_needed(
    effect: float, sd: float, item_error: float = 0.0, power: float = 0.8, limit: int = 1000
) -> int | None:
    """The smallest number of seeds at which a two-sided 5 % test finds a true ``effect`` with ``power``.

    The power is that of the t-test with seeds - 1 degrees of freedom, from the noncentral t distribution.
    ``effect``, ``sd`` and ``item_error`` have the same unit. Returns None where ``limit`` seeds are too few.
    Raises ValueError for an effect of 0 and for a negative spread.

    sd: standard deviation of the paired difference over seeds.
    item_error: standard error that the choice of problems leaves, however many seeds are run.
    """
    if effect == 0 or sd < 0 or item_error < 0:
        raise ValueError(f"the effect must not be 0 and spreads must not be negative: {effect=}, {sd=}, {item_error=}")
    for seeds in range(2, limit + 1):
        variance = sd**2 / seeds + item_error**2
        if variance == 0:
            return seeds
        critical = t_quantile(1 - ALPHA / 2, seeds - 1)
        if noncentral_t_tail(critical, seeds - 1, abs(effect) / variance**0.5) >= power:
            return seeds
    return None


def items_needed(margin: float, sd: float, power: float = 0.8, alpha: float = ALPHA) -> int:
    """The number of problems at which a one-sided test against ``margin`` has ``power`` when nothing changed.

    sd: standard deviation of one problem's score, in the unit of ``margin``.
    Raises ValueError for a margin that is not above 0.
    """
    if margin <= 0:
        raise ValueError(f"the margin must be above 0: {margin=}")
    z = normal_quantile(1 - alpha / 2) + normal_quantile(power)
    return max(2, ceil((z * sd / margin) ** 2))
