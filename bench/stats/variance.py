"""The variance of a mean over two crossed random factors: training runs and clusters of problems (items).

Scores are modelled as  score = mean of the student + run + item + (run x item),  so the variance of the mean is

    V = V_seed + V_item - V_cell

(two-way clustering: Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway Clustering", eq. 2.11;
for crossed random effects Owen 2007, "The pigeonhole bootstrap"). ``V_cell`` comes from residuals without both
main effects. The raw intersection term of the textbook also subtracts 1/runs of the item variance, which is a
third at three runs.

Students are fixed blocks: the mean is that of these students, each counted the same, and only the runs within a student
vary at random. With S students of n_s runs each, and s^2 the variance over runs within students, pooled over them,

    V_seed = s^2 sum_s 1 / (S^2 n_s),    with sum_s (n_s - 1) degrees of freedom.

This is the error of the mean of the students' means in a one-way analysis of variance. With equal n_s it is
sum_s s_s^2 / (S^2 n_s). A student of a single run has no s_s and borrows the s of the others.

A t quantile with the runs' degrees of freedom on all of V is right when runs dominate. It is far too wide when
items do: an interval of nominally 95 % covers 99.4 % at 3 runs. Satterthwaite's degrees of freedom are too narrow
(93.2 %). The modified large-sample form (Howe 1974; Graybill and Wang 1980) gives each part its own quantile:

    half^2 = t(seed_df)^2 V_seed + t(clusters - strata)^2 max(V_item - V_cell, 0)

The result is never below half of t(clusters - strata)^2 max(V_item, V_cell). Otherwise three runs that happen to
have the same mean would give an interval of width 0. ``bench.stats.simulate`` measures the coverage of this interval.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from bench.stats.cells import Aggregate, Cells, FloatArray, IntArray
from bench.stats.distributions import root_between, t_quantile

FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Spread:
    """The two parts of the variance of a mean, in score units squared, and their degrees of freedom.

    seed: the effect of the run and the run x item noise. With one seed per student it is 0, and the interval covers
        other items but not other training runs.
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


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The students as blocks of runs.

    student: number of the student of each run, shape [runs].
    runs: number of runs of each student, shape [students].
    share: weight of each student in the mean, shape [students].
    """

    student: IntArray
    runs: IntArray
    share: FloatArray

    @classmethod
    def of(cls, cells: Cells, weights: FloatArray) -> "_Blocks":
        student = np.zeros(cells.runs, int)
        student[cells.run] = cells.student
        share = np.bincount(cells.student, weights).astype(np.float64)
        return cls(student, np.bincount(student), share)

    @property
    def df(self) -> int:
        """Degrees of freedom of the variance over the runs within students."""
        return len(self.student) - len(self.runs)

    def mean_variance(self, squares: FloatArray) -> float:
        """The variance of the mean from the squared deviation of each run's part of it, shape [runs]."""
        part = self.share / self.runs
        variance = float(np.sum(squares / part[self.student] ** 2)) / self.df
        return variance * float(self.share @ part)

    def column_means(self, table: FloatArray) -> FloatArray:
        """The mean of each column over the runs of each student, shape [students, columns]."""
        return _sums((len(self.runs), table.shape[1]), self.student, table) / self.runs[:, None]


def mean_and_spread(cells: Cells, aggregate: Aggregate = "macro") -> tuple[float, Spread]:
    """The weighted mean of the cells and its spread.

    No part of the spread is negative. A benchmark with a single cluster has an unknown item variance, so its spread is
    infinite. The total is never below that of one differing cluster per benchmark: items that all agree do not show
    that the next item would agree too.
    """
    weights = cells.weights(aggregate)
    value = float(weights @ cells.score)
    blocks = _Blocks.of(cells, weights)
    stratum_of = np.zeros(cells.clusters, int)
    stratum_of[cells.cluster] = cells.stratum
    sizes = np.bincount(stratum_of, minlength=cells.strata)
    if (sizes < 2).any():
        return value, Spread(0.0, inf, blocks.df, 1)

    in_group = _sums((cells.strata, cells.students), (cells.stratum, cells.student), weights)
    in_group[in_group == 0] = 1  # a student without a response to a benchmark; nothing is divided by it
    totals = _sums((cells.strata, cells.students), (cells.stratum, cells.student), weights * cells.score)
    means = totals / in_group
    deviations = weights * (cells.score - means[cells.stratum, cells.student])
    table = _sums((cells.runs, cells.clusters), (cells.run, cells.cluster), deviations)

    item_scale = (sizes / (sizes - 1))[stratum_of]
    item, item_df = float(item_scale @ table.sum(0) ** 2), cells.clusters - cells.strata
    share = np.bincount(cells.stratum, weights, minlength=cells.strata)
    agreeing = float(np.sum((share / sizes) ** 2))
    if blocks.df == 0:
        return value, Spread(0.0, item, 0, item_df, agreeing)

    seed = blocks.mean_variance(table.sum(1) ** 2)
    own_weights = _sums((cells.students, cells.clusters), (cells.student, cells.cluster), weights)
    cluster_share = own_weights / in_group[stratum_of].T
    run_effect = (table @ (stratum_of[:, None] == np.arange(cells.strata)))[:, stratum_of]
    residual = table - blocks.column_means(table)[blocks.student] - run_effect * cluster_share[blocks.student]
    cell = blocks.mean_variance(residual**2 @ item_scale)
    floor = max(FLOOR * max(item, cell), agreeing)
    return value, Spread(seed, max(item - cell, 0.0), blocks.df, item_df, floor)


def _sums(shape: tuple[int, int], positions: IntArray | tuple[IntArray, IntArray], values: FloatArray) -> FloatArray:
    """A table of ``shape`` with the sum of all ``values`` of the same position."""
    table = np.zeros(shape)
    np.add.at(table, positions, values)
    return table
