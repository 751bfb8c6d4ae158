"""Quantiles, tail probabilities and exact tests of scipy and statsmodels, with types: both have no type stubs."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from bench.stats.cells import FloatArray


def normal_quantile(probability: float) -> float:
    """The quantile of the standard normal distribution."""
    return float(stats.norm.ppf(probability))


def t_quantile(probability: float, df: int) -> float:
    """The quantile of Student's t distribution; infinite without a degree of freedom."""
    return float(stats.t.ppf(probability, df)) if df > 0 else inf


def normal_tail(values: FloatArray) -> FloatArray:
    """The probabilities that a standard normal variable exceeds each of ``values``."""
    return np.asarray(special.ndtr(-values), np.float64)


def chi_square_quantiles(probabilities: FloatArray, df: int) -> FloatArray:
    """The quantiles of the chi-square distribution."""
    return 2 * np.asarray(special.gammaincinv(df / 2, probabilities), np.float64)


def sign_test(gained: int, lost: int) -> float:
    """The exact two-sided p-value of ``gained`` and ``lost`` pairs under equal chances; 1 without a pair."""
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def wilson_interval(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's interval of a share of ``n`` draws, which need not be a whole number."""
    from statsmodels.stats.proportion import proportion_confint

    bounds: Any = proportion_confint(share * n, n, alpha=1 - level, method="wilson")
    return float(bounds[0]), float(bounds[1])


def root_between(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """The root of ``function`` between ``low`` and ``high``, where it changes its sign (Brent's method)."""
    root: Any = optimize.brentq(function, low, high, xtol=tolerance)
    return float(root)
