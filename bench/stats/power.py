"""Power: which differences a design of students and seeds finds, and how many seeds a difference takes.

The test of ``bench.stats.variance`` finds a difference at the level alpha when it is larger than half, where

    half^2 = t(seed_df)^2 S_seed + t(item_df)^2 V_item    (and not below the floor)

S_seed estimates V_seed: seed_df S_seed / V_seed is chi-square with seed_df degrees of freedom. The power is the
probability that a normal variable around the true difference, with variance V_seed + V_item, is larger than half, as a
mean over that distribution. Without an item part this is a tail of the noncentral t distribution, as in the power of
the t test.
"""

from dataclasses import replace
from math import inf, sqrt

import numpy as np

from bench.stats.cells import FloatArray
from bench.stats.corrections import ALPHA
from bench.stats.distributions import chi_square_quantiles, normal_tail, root_between, t_quantile
from bench.stats.variance import Spread

POWER = 0.8
MOST_SEEDS = 1000
_MANY_ITEMS = 10**6
_NODES = (np.arange(1000) + 0.5) / 1000


def planned_spread(sd: float, students: int, seeds: int, item_error: float = 0.0) -> Spread:
    """The spread that a contrast is expected to have, in the unit of ``sd``.

    sd: standard deviation of the difference over the seeds of one student.
    seeds: number of seeds per student.
    item_error: standard error that the choice of problems leaves, however many seeds are run.
    """
    return Spread(sd**2 / (students * seeds), item_error**2, students * (seeds - 1), _MANY_ITEMS)


def power(effect: float, spread: Spread, alpha: float = ALPHA) -> float:
    """The probability that the two-sided test at the level ``alpha`` finds a true ``effect``.

    spread: the true variances.
    """
    return _power(effect, spread, _halves(spread, alpha))


def _halves(spread: Spread, alpha: float) -> FloatArray:
    """Quantiles of half the width of the interval, shape [nodes]."""
    by_item = t_quantile(1 - alpha / 2, spread.item_df) ** 2
    squares = np.full(len(_NODES), by_item * spread.item)
    if spread.seed > 0:
        by_seed = t_quantile(1 - alpha / 2, spread.seed_df) ** 2
        squares += by_seed * spread.seed * chi_square_quantiles(_NODES, spread.seed_df) / spread.seed_df
    return np.sqrt(np.maximum(squares, by_item * spread.floor))


def _power(effect: float, spread: Spread, halves: FloatArray) -> float:
    sd = sqrt(max(spread.seed + spread.item, spread.floor))
    if sd == 0:
        return float(np.mean(halves < abs(effect)))
    return float(np.mean(normal_tail((halves - effect) / sd) + normal_tail((halves + effect) / sd)))


def detectable_effect(spread: Spread, alpha: float = ALPHA) -> float:
    """The smallest true effect that the two-sided test at the level ``alpha`` finds with 80 % power.

    It is infinite where a benchmark has a single cluster, and 0 where nothing varies.
    """
    high = spread.reach(1 - alpha / 2)
    if not 0 < high < inf:
        return high
    halves = _halves(spread, alpha)
    while _power(high, spread, halves) < POWER:
        high *= 2
    return root_between(lambda effect: _power(effect, spread, halves) - POWER, 0.0, high, tolerance=high * 1e-6)


def seeds_needed(effect: float, spread: Spread, students: int, runs: int, alpha: float = ALPHA) -> int | None:
    """The smallest number of seeds per student at which the test finds a true ``effect`` with 80 % power.

    spread: that of ``runs`` runs of ``students`` students. Only its seed part shrinks with the number of runs.
    Returns None where ``MOST_SEEDS`` seeds are too few. Raises ValueError for an effect of 0.
    """
    if effect == 0:
        raise ValueError("no number of seeds finds an effect of 0")

    def enough(seeds: int) -> bool:
        seed = spread.seed * runs / (students * seeds)
        return power(effect, replace(spread, seed=seed, seed_df=students * (seeds - 1)), alpha) >= POWER

    low, high = 1, 2
    while not enough(high):
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
