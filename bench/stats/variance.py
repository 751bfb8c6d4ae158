"""Variance and interval of a mean over two crossed random factors: training seeds and item clusters.

Scores are modelled as  score = mean + seed + item + (seed x item),  so the variance of the mean is

    V = V_seed + V_item - V_cell

(two-way clustering: Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway Clustering", eq. 2.11;
for crossed random effects Owen 2007, "The pigeonhole bootstrap"). ``V_cell`` is taken from residuals free of
both main effects: the textbook's raw intersection term also subtracts 1/seeds of the item variance, which is a
third at three seeds.

Quantile. A t quantile with seeds - 1 degrees of freedom on the whole of V is right when seeds dominate, and far
too wide when items do (99.4 % coverage at 3 seeds where it says 95 %); Satterthwaite's degrees of freedom are too
narrow (93.2 %). Used here is the modified large-sample form (Howe 1974; Graybill and Wang 1980), each part with
its own quantile:

    half^2 = t(seeds - 1)^2 V_seed + t(clusters - strata)^2 max(V_item - V_cell, 0)

and never below half of t(clusters - strata)^2 max(V_item, V_cell): three seeds that happen to end alike would
otherwise leave an interval of width 0. ``bench.stats.simulate`` measures the coverage of the whole.
"""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from scipy import optimize, stats

from bench.stats.cells import Aggregate, Cells

FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """The two parts of a mean's variance (in score units squared) and their degrees of freedom.

    ``seed`` holds the seed effect and the seed x item noise; ``item`` what items alone add. With one seed
    ``seed`` is 0 and the interval speaks of other items only, not of other training runs. ``floor`` bounds the
    sum from below, with the items' degrees of freedom.
    """

    seed: float
    item: float
    seed_df: int
    item_df: int
    floor: float = 0.0

    def reach(self, probability: float) -> float:
        """The one-sided ``probability`` quantile of the error: half a two-sided interval of 2 probability - 1."""
        seed = _quantile(probability, self.seed_df) ** 2 * self.seed if self.seed else 0.0
        by_item = _quantile(probability, self.item_df) ** 2
        return sqrt(max(seed + by_item * self.item, by_item * self.floor))

    def p_value(self, difference: float) -> float:
        """Two-sided p-value: the level at which the interval just reaches 0."""
        size = abs(difference)
        if size == 0 or self.item == inf:
            return 1.0
        if self.reach(1 - 5e-13) < size:
            return 1e-12
        root: Any = optimize.brentq(lambda p: self.reach(1 - p / 2) - size, 1e-12, 1.0, xtol=1e-12)
        return float(root)


def _quantile(probability: float, df: int) -> float:
    return float(stats.t.ppf(probability, df)) if df > 0 else inf


def mean_and_spread(cells: Cells, aggregate: Aggregate = "macro") -> tuple[float, Spread]:
    """Weighted mean of the cells and its spread.

    Guards: no part is negative; a benchmark with one cluster has unknown item variance (infinite spread); and the
    whole is never below that of one differing cluster a benchmark, since items that all agree do not show that
    the next one would.
    """
    weights = cells.weights(aggregate)
    value = float(weights @ cells.score)
    seeds, clusters = cells.seeds, cells.clusters
    stratum_of = np.zeros(clusters, int)
    stratum_of[cells.cluster] = cells.stratum
    sizes = np.bincount(stratum_of, minlength=cells.strata)
    share = np.bincount(cells.stratum, weights, minlength=cells.strata)
    if (sizes < 2).any():
        return value, Spread(0.0, inf, seeds - 1, 1)

    means = np.bincount(cells.stratum, weights * cells.score, minlength=cells.strata) / share
    table = np.zeros((seeds, clusters))
    np.add.at(table, (cells.seed, cells.cluster), weights * (cells.score - means[cells.stratum]))

    item_scale = (sizes / (sizes - 1))[stratum_of]
    item = float(item_scale @ table.sum(0) ** 2)
    agreeing = float(np.sum((share / sizes) ** 2))
    if seeds == 1:
        return value, Spread(0.0, item, 0, clusters - cells.strata, agreeing)

    seed_scale = seeds / (seeds - 1)
    seed = seed_scale * float(np.sum(table.sum(1) ** 2))
    by_stratum = np.stack([np.bincount(stratum_of, row, minlength=cells.strata) for row in table])
    cluster_weight = np.bincount(cells.cluster, weights, minlength=clusters) / share[stratum_of]
    residual = table - table.mean(0) - by_stratum[:, stratum_of] * cluster_weight
    cell = seed_scale * float(item_scale @ np.sum(residual**2, 0))
    floor = max(FLOOR * max(item, cell), agreeing)
    return value, Spread(seed, max(item - cell, 0.0), seeds - 1, clusters - cells.strata, floor)
