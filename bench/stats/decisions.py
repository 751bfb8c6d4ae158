"""From p-values to the only verdicts that are printed, and the power behind them."""

from math import ceil
from typing import Literal

ContrastVerdict = Literal["better", "worse", "not resolved"]
ALPHA = 0.05


def contrast_verdict(difference: float, adjusted_p: float, alpha: float = ALPHA) -> ContrastVerdict:
    """Better or worse when the adjusted test rejects equality, else not resolved."""
    if adjusted_p >= alpha or difference == 0:
        return "not resolved"
    return "better" if difference > 0 else "worse"


def seeds_needed(
    effect: float, sd: float, item_error: float = 0.0, power: float = 0.8, limit: int = 1000
) -> int | None:
    """Fewest seeds at which a true ``effect`` is found with ``power`` at the 5 % level, two-sided.

    ``sd`` is the standard deviation over seeds of the paired difference; ``item_error`` the standard error that
    items alone leave however many seeds are run; all three in the same unit. Power of the t-test with
    seeds - 1 degrees of freedom from the noncentral t distribution. None: not within ``limit`` seeds.

    Raises:
        ValueError: an effect of 0 or a negative spread.
    """
    from scipy import stats

    if effect == 0 or sd < 0 or item_error < 0:
        raise ValueError("seeds_needed wants an effect other than 0 and spreads of 0 or more")
    for seeds in range(2, limit + 1):
        variance = sd**2 / seeds + item_error**2
        if variance == 0:
            return seeds
        critical = float(stats.t.ppf(1 - ALPHA / 2, seeds - 1))
        if float(stats.nct.sf(critical, seeds - 1, abs(effect) / variance**0.5)) >= power:
            return seeds
    return None


def items_needed(margin: float, sd: float, power: float = 0.8, alpha: float = ALPHA) -> int:
    """Items at which a one-sided test against ``margin`` has ``power`` when nothing changed; ``sd`` is one item's.

    Raises:
        ValueError: a margin that is not above 0.
    """
    from scipy import stats

    if margin <= 0:
        raise ValueError("the margin must be above 0")
    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return max(2, ceil((z * sd / margin) ** 2))
