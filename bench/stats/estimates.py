"""Accuracy of one arm, and the paired difference of two, each with its 95 % interval. Everything in [0, 1] units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.stats.cells import Aggregate, Cells, pair, to_cells
from bench.stats.variance import Spread, mean_and_spread

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Accuracy:
    """An accuracy; ``n`` counts the responses behind it, ``items`` the problems, ``seeds`` the training runs.

    ``mde``: the least true difference from another arm that is found with 80 % power at the 5 % level, were that arm
    as uncertain and right on other problems independently. Arms on the same problems agree on many of them:
    ``paired_difference`` finds smaller ones.
    """

    value: float
    low: float
    high: float
    n: int
    items: int
    seeds: int
    mde: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Test minus against on the responses both have; ``mde`` is detectable with 80 % power at the 5 % level.

    ``missing_test`` counts responses that only the other arm has, ``missing_against`` the reverse.
    ``method`` names the test behind ``p``. ``inner`` bounds the 90 % interval, which two one-sided tests use.
    """

    value: float
    low: float
    high: float
    inner: tuple[float, float]
    p: float
    mde: float
    n: int
    items: int
    seeds: int
    missing_test: int
    missing_against: int
    method: str
    spread: Spread

    def within(self, margin: float) -> bool:
        """Equivalence at the 5 % level: two one-sided tests against +-``margin`` (Schuirmann 1987)."""
        return -margin < self.inner[0] and self.inner[1] < margin


def accuracy(verdicts: pd.DataFrame, aggregate: Aggregate = "macro") -> Accuracy:
    """Accuracy over the rows of one arm (columns benchmark, id, cluster, seed, correct).

    Wilson's interval on the effective number of items p(1-p)/V, V from ``mean_and_spread`` (Korn and Graubard
    1998), so that it stays within [0, 1] and does not collapse at 0 % and 100 %. For one seed of unclustered
    items the effective number is the number of items: Wilson's interval itself. Several samples an item make it
    larger, never smaller: a score in [0, 1] of mean p has a variance of at most p(1-p).

    Raises:
        ValueError: no rows.
    """
    from scipy.stats import norm
    from statsmodels.stats.proportion import proportion_confint

    cells = to_cells(verdicts.assign(score=verdicts["correct"].astype(float)))
    mean, spread = mean_and_spread(cells, aggregate)
    value = min(max(mean, 0.0), 1.0)
    n = float(cells.items) if cells.plain else _effective_items(cells, value, spread, aggregate, float(norm.ppf(0.975)))
    bounds: Any = proportion_confint(value * n, n, alpha=1 - LEVEL, method="wilson")
    # The bounds of 0 % and 100 % miss the value itself by rounding errors.
    low, high = min(float(bounds[0]), value), max(float(bounds[1]), value)
    mde = min(2**0.5 * (spread.reach(0.5 + LEVEL / 2) + spread.reach(POWER)), 1.0)
    return Accuracy(value, low, high, cells.samples, cells.items, cells.seeds, mde)


def _effective_items(cells: Cells, value: float, spread: Spread, aggregate: Aggregate, z: float) -> float:
    weights = cells.weights(aggregate)
    per_cluster = np.bincount(cells.cluster, weights)
    largest = 1 / float(np.sum(per_cluster**2))  # Kish's effective number of clusters
    reach = spread.reach(0.5 + LEVEL / 2)
    if min(value, 1 - value) < 1e-9 or reach == 0:
        return largest
    if reach == float("inf"):
        return 1.0
    independent = cells.seeds == cells.strata == 1 and cells.clusters == cells.items
    found = min(value * (1 - value) / (reach / z) ** 2, largest * cells.samples / cells.items)
    return max(found, cells.items) if independent else found


def paired_difference(test: pd.DataFrame, against: pd.DataFrame, aggregate: Aggregate = "macro") -> Difference:
    """Paired difference of two arms on the same items, seeds and samples.

    The p-value inverts the two-way interval; for one seed of one benchmark with independent items, each right or
    wrong, it is McNemar's exact test.

    Raises:
        ValueError: the arms share no response, or a key occurs twice in one arm.
    """
    pairing = pair(test, against)
    if pairing.common.empty:
        raise ValueError("the two arms have no (item, seed) in common: evaluate both on the same problems and seeds")
    cells = to_cells(pairing.common)
    value, spread = mean_and_spread(cells, aggregate)
    reach, inner = spread.reach(0.5 + LEVEL / 2), spread.reach(0.95)
    if cells.plain and np.isin(cells.score, (-1.0, 0.0, 1.0)).all():
        p, method = mcnemar(cells.score), "exact McNemar"
    else:
        p = spread.p_value(value)
        method = "two-way t (seeds x items)" if cells.seeds > 1 else "item-cluster t (one seed: items only)"
    return Difference(
        value=value,
        low=max(value - reach, -1.0),
        high=min(value + reach, 1.0),
        inner=(max(value - inner, -1.0), min(value + inner, 1.0)),
        p=p,
        mde=min(reach + spread.reach(POWER), 1.0),
        n=cells.samples,
        items=cells.items,
        seeds=cells.seeds,
        missing_test=pairing.missing_test,
        missing_against=pairing.missing_against,
        method=method,
        spread=spread,
    )


def mcnemar(differences: Sequence[float] | np.ndarray) -> float:
    """Exact two-sided McNemar p-value of paired 0/1 scores given as differences in {-1, 0, 1}."""
    from scipy.stats import binomtest

    array = np.asarray(differences)
    gained, lost = int((array > 0).sum()), int((array < 0).sum())
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
