"""The accuracy of one arm and the paired difference of two, each with its 95 % interval, as shares in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from bench.records import Frame
from bench.stats.cells import Aggregate, Cells, FloatArray, pair, to_cells
from bench.stats.distributions import normal_quantile, sign_test, wilson_interval
from bench.stats.power import POWER, detectable_effect
from bench.stats.variance import Spread, mean_and_spread

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Accuracy:
    """An accuracy with its 95 % interval.

    n, items, students, runs: counts of the responses, the problems, the students and the training runs behind it.
    mde: the smallest true difference from a second, equally uncertain and independent arm that a 5 % test finds with
        80 % power. ``paired_difference`` finds smaller differences, because arms agree on many problems.
    """

    value: float
    low: float
    high: float
    n: int
    items: int
    students: int
    runs: int
    mde: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Test minus against, on the responses that all arms have. Each side is an arm, or the gain of one over another.

    low, high: bounds of the 95 % interval.
    inner: bounds of the 90 % interval, which two one-sided tests use.
    p: two-sided p-value of the test that ``method`` names.
    mde: the smallest true difference that an uncorrected 5 % test finds with 80 % power.
    missing: responses that some of the arms have and others lack.
    """

    value: float
    low: float
    high: float
    inner: tuple[float, float]
    p: float
    mde: float
    n: int
    items: int
    students: int
    runs: int
    missing: int
    method: str
    spread: Spread

    @property
    def run_sd(self) -> float:
        """The standard deviation over the runs of one student; 0 with one seed per student."""
        return sqrt(self.spread.seed * self.runs)

    def within(self, margin: float) -> bool:
        """Whether the arms are equivalent: two one-sided 5 % tests against ±``margin`` (Schuirmann 1987)."""
        return -margin < self.inner[0] and self.inner[1] < margin


def accuracy(verdicts: Frame, aggregate: Aggregate = "macro") -> Accuracy:
    """The accuracy of one arm, from rows with the columns benchmark, id, cluster, student, seed and correct.

    The interval is Wilson's on the effective number of items p(1-p)/V, with V from ``mean_and_spread`` (Korn and
    Graubard 1998). It stays within [0, 1] and does not collapse at 0 % and 100 %. For one run of unclustered items
    the effective number is the number of items, which gives Wilson's interval itself. Several samples per item make
    the number larger, never smaller: a score in [0, 1] of mean p has a variance of at most p(1-p).

    Raises ValueError for an arm without rows.
    """
    cells = to_cells(verdicts.assign(score=verdicts["correct"].astype(float)))
    mean, spread = mean_and_spread(cells, aggregate)
    value = min(max(mean, 0.0), 1.0)
    n = float(cells.items) if cells.plain else _effective_items(cells, value, spread, aggregate)
    low, high = wilson_interval(value, n, LEVEL)
    # Rounding errors can put a bound of 0 % or 100 % on the wrong side of the value.
    low, high = min(low, value), max(high, value)
    mde = min(2**0.5 * (spread.reach(0.5 + LEVEL / 2) + spread.reach(POWER)), 1.0)
    return Accuracy(value, low, high, cells.samples, cells.items, cells.students, cells.runs, mde)


def _effective_items(cells: Cells, value: float, spread: Spread, aggregate: Aggregate) -> float:
    weights = cells.weights(aggregate)
    per_cluster = np.bincount(cells.cluster, weights)
    largest = 1 / float(np.sum(per_cluster**2))  # Kish's effective number of clusters
    reach = spread.reach(0.5 + LEVEL / 2)
    if min(value, 1 - value) < 1e-9 or reach == 0:
        return largest
    if reach == float("inf"):
        return 1.0
    independent = cells.runs == cells.strata == 1 and cells.clusters == cells.items
    effective = min(
        value * (1 - value) / (reach / normal_quantile(0.5 + LEVEL / 2)) ** 2, largest * cells.samples / cells.items
    )
    return max(effective, cells.items) if independent else effective


def paired_difference(
    test: Frame, against: Frame, aggregate: Aggregate = "macro", over: tuple[Frame, Frame] | None = None
) -> Difference:
    """The paired difference of two arms on the same items, students, seeds and samples.

    over: with these arms, the difference of two gains instead: that of ``test`` over the first of them, minus that of
        ``against`` over the second.

    The p-value inverts the two-way interval. One run on one benchmark with independent items, each right or wrong,
    gets McNemar's exact test instead.

    Raises ValueError when the arms share no response, and when a response occurs twice in one arm.
    """
    pairing = pair(test, against, over)
    if pairing.common.empty:
        raise ValueError(
            "the arms have no problem and run in common; evaluate both on the same problems, students and seeds"
        )
    cells = to_cells(pairing.common)
    value, spread = mean_and_spread(cells, aggregate)
    reach, inner = spread.reach(0.5 + LEVEL / 2), spread.reach(0.95)
    largest = 1.0 if over is None else 2.0
    if over is None and cells.plain and np.isin(cells.score, (-1.0, 0.0, 1.0)).all():
        p, method = mcnemar(cells.score), "exact McNemar"
    else:
        p = spread.p_value(value)
        method = _method(cells, spread)
    return Difference(
        value=value,
        low=max(value - reach, -largest),
        high=min(value + reach, largest),
        inner=(max(value - inner, -largest), min(value + inner, largest)),
        p=p,
        mde=min(detectable_effect(spread), largest),
        n=cells.samples,
        items=cells.items,
        students=cells.students,
        runs=cells.runs,
        missing=pairing.missing,
        method=method,
        spread=spread,
    )


def _method(cells: Cells, spread: Spread) -> str:
    if spread.seed_df == 0:
        return "item-cluster t (one seed: items only)"
    return f"two-way t ({'seeds' if cells.students == 1 else 'seeds within students'} x items)"


def mcnemar(differences: Sequence[float] | FloatArray) -> float:
    """The exact two-sided McNemar p-value of paired 0/1 scores, from their differences in {-1, 0, 1}."""
    array = np.asarray(differences)
    return sign_test(int((array > 0).sum()), int((array < 0).sum()))
