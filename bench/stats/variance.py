"""The variance of a mean over two crossed random factors: training seeds and clusters of problems (items).

Scores are modelled as  score = mean + seed + item + (seed x item),  so the variance of the mean is

    V = V_seed + V_item - V_cell

(two-way clustering: Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway Clustering", eq. 2.11;
for crossed random effects Owen 2007, "The pigeonhole bootstrap"). ``V_cell`` comes from residuals without both
main effects. The raw intersection term of the textbook also subtracts 1/seeds of the item variance, which is a
third at three seeds.

A t quantile with seeds - 1 degrees of freedom on all of V is right when seeds dominate. It is far too wide when
items do: an interval of nominally 95 % covers 99.4 % at 3 seeds. Satterthwaite's degrees of freedom are too narrow
(93.2 %). The modified large-sample form (Howe 1974; Graybill and Wang 1980) gives each part its own quantile:

    half^2 = t(seeds - 1)^2 V_seed + t(clusters - strata)^2 max(V_item - V_cell, 0)

The result is never below half of t(clusters - strata)^2 max(V_item, V_cell). Otherwise three seeds that happen to
have the same mean would give an interval of width 0. ``bench.stats.simulate`` measures the coverage of this interval.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from bench.stats.cells import Aggregate, Cells
from bench.stats.distributions import root_between, t_quantile

FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """The two parts of the variance of a mean, in score units squared, and their degrees of freedom.

    seed: the seed effect and the seed x item noise. With one seed it is 0, and the interval covers other items but not
        other training runs.
    item: what items alone add.
    floor: lower bound of the sum, with the degrees of freedom of items.
    """

    seed: float
    item: float
    seed_df: int
    item_df: int
    floor: float = 0.0

    def reach(self, probability: float) -> float:
        """The one-sided ``probability`` quantile of the error: half the width of a 2 probability - 1 interval."""
        seed = t_quantile(probability, self.seed_df) ** 2 * self.seed if self.seed else 0.0
        by_item = t_quantile(probability, self.item_df) ** 2
        return sqrt(max(seed + by_item * self.item, by_item * self.floor))

    def p_value(self, difference: float) -> float:
        """The two-sided p-value of ``difference``: the level at which its interval just reaches 0."""
        size = abs(difference)
        if size == 0 or self.item == inf:
            return 1.0
        if self.reach(1 - 5e-13) < size:
            return 1e-12
        return root_between(lambda p: self.reach(1 - p / 2) - size, 1e-12, 1.0, tolerance=1e-12)


def mean_and_spread(cells: Cells, aggregate: Aggregate = "macro") -> tuple[float, Spread]:
    """The weighted mean of the cells and its spread.

    No part of the spread is negative. A benchmark with a single cluster has an unknown item variance, so its spread is
    infinite. The total is never below that of one differing cluster per benchmark: items that all agree do not show
    that the next item would agree too.
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
