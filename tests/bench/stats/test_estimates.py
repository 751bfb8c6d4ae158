"""Accuracies and paired differences, checked against hand counts and other libraries."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from bench.stats.cells import to_cells
from bench.stats.estimates import accuracy, mcnemar, paired_difference


def arm(correct, benchmark="b", seed=1, cluster=None, student="a") -> pd.DataFrame:
    n = len(correct)
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "id": [f"q{i}" for i in range(n)],
            "cluster": cluster if cluster is not None else [f"q{i}" for i in range(n)],
            "student": student,
            "seed": seed,
            "sample": 0,
            "correct": np.asarray(correct, bool),
        }
    )


def test_one_seed_of_independent_items_is_wilsons_interval():
    got = accuracy(arm([1] * 30 + [0] * 70))
    expected = stats.binomtest(30, 100).proportion_ci(method="wilson")
    assert (got.value, got.n) == (pytest.approx(0.3), 100)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("right", [0, 1])
def test_an_accuracy_at_the_edge_keeps_an_interval(right):
    got = accuracy(pd.concat([arm([right] * 50, seed=s) for s in (1, 2, 3)]))
    assert -1e-12 < got.low <= got.value <= got.high < 1 + 1e-12
    assert got.value == pytest.approx(right)
    assert 0.02 < got.high - got.low < 0.12


def test_repeating_each_item_in_a_cluster_does_not_narrow_the_interval():
    base = np.random.default_rng(0).integers(0, 2, 60)
    single = accuracy(arm(base))
    double = accuracy(arm(np.repeat(base, 2), cluster=[f"c{i // 2}" for i in range(120)]))
    assert double.n == 120
    assert double.high - double.low == pytest.approx(single.high - single.low, rel=0.05)


def test_seed_spread_widens_the_accuracy_interval():
    rng = np.random.default_rng(1)
    steady = pd.concat([arm(rng.random(200) < 0.5, seed=s) for s in range(3)])
    shaky = pd.concat([arm(rng.random(200) < p, seed=s) for s, p in enumerate((0.3, 0.5, 0.7))])
    a, b = accuracy(steady), accuracy(shaky)
    assert b.high - b.low > 2 * (a.high - a.low)


def test_shares_of_right_samples_are_not_pairs_of_right_and_wrong():
    """7 problems gain a little and 3 lose much, so a sign test would contradict the difference."""
    changes = [0.25] * 7 + [-1.0] * 3 + [0.0] * 2
    against = arm([0] * 12).assign(correct=[0.0] * 7 + [1.0] * 3 + [0.5] * 2)
    test = against.assign(correct=against["correct"] + changes)
    got = paired_difference(test, against)
    expected: Any = stats.ttest_1samp(changes, 0)
    assert got.value == pytest.approx(np.mean(changes)) and got.value < 0
    assert got.method.startswith("item-cluster t") and got.p == pytest.approx(float(expected.pvalue), rel=0.1)
    assert (got.low < 0 < got.high) == (got.p > 0.05)


def test_difference_of_one_seed_uses_the_exact_mcnemar_test():
    first, second = arm([1] * 12 + [0] * 3 + [1] * 35), arm([0] * 12 + [1] * 3 + [1] * 35)
    got = paired_difference(first, second)
    assert got.value == pytest.approx(9 / 50)
    expected: Any = reference_mcnemar([[35, 12], [3, 0]], exact=True)
    assert got.p == pytest.approx(expected.pvalue)
    assert got.method == "exact McNemar"
    assert mcnemar([0, 0]) == 1.0


def test_missing_responses_are_counted_and_neither_wrong_nor_silently_dropped():
    first, second = arm([1, 1, 0, 0, 1]), arm([1, 0, 0, 0, 1]).iloc[:4]
    got = paired_difference(first, second)
    assert (got.n, got.missing) == (4, 1)
    assert got.value == pytest.approx(0.25)


def test_a_difference_of_gains_is_the_t_test_of_signed_scores():
    """Several seeds and items without seed effect: scipy's t test of the mean signed score of each run."""
    rng = np.random.default_rng(6)
    answers = {name: rng.random((4, 3000)) < p for name, p in zip("abcd", (0.8, 0.5, 0.6, 0.5), strict=True)}
    frames = {name: pd.concat([arm(row, seed=s) for s, row in enumerate(rows)]) for name, rows in answers.items()}
    got = paired_difference(frames["a"], frames["c"], over=(frames["b"], frames["d"]))
    signed = answers["a"] * 1.0 - answers["b"] - answers["c"] + answers["d"]
    assert got.value == pytest.approx(signed.mean())
    assert got.spread.seed == pytest.approx(signed.mean(1).var(ddof=1) / 4)
    assert (got.n, got.missing, got.runs) == (12000, 0, 4)
    assert got.low < 0.2 < got.high and got.p < 0.01


def test_a_difference_of_gains_reaches_further_than_one():
    ones, zeros = arm([1] * 9 + [0]), arm([0] * 9 + [1])
    got = paired_difference(ones, zeros, over=(zeros, ones))
    assert got.value == pytest.approx(1.6) and 1.6 < got.high <= 2
    assert got.method.startswith("item-cluster t")


def test_equal_answers_have_no_difference_and_no_verdict():
    rows = pd.concat([arm([1, 0] * 40, seed=s) for s in (1, 2, 3)])
    got = paired_difference(rows, rows)
    assert (got.value, got.p) == (0, 1)
    assert got.low < 0 < got.high
    assert got.within(0.05)


def test_arms_without_common_responses_are_refused():
    with pytest.raises(ValueError, match="in common"):
        paired_difference(arm([1, 0], seed=1), arm([1, 0], seed=2))


def test_a_repeated_response_is_refused():
    rows = arm([1, 0, 1])
    with pytest.raises(pd.errors.MergeError):
        paired_difference(pd.concat([rows, rows]), rows)


def test_samples_of_one_item_are_averaged_before_anything_else():
    rows = pd.concat([arm([1, 0]).assign(sample=0), arm([0, 0]).assign(sample=1)])
    cells = to_cells(rows.assign(score=rows["correct"].astype(float)))
    assert list(cells.score) == [0.5, 0.0]
    assert (cells.items, cells.samples) == (2, 4)


def test_the_stated_effect_is_detected_with_about_eighty_percent_power():
    rng = np.random.default_rng(5)
    detected, mdes = 0, []
    for _ in range(80):
        gain = rng.random(300) < 0.10
        lose = ~gain & (rng.random(300) < 0.02)
        got = paired_difference(arm(~lose), arm(~gain))
        mdes.append(got.mde)
        detected += got.p < 0.05
    mde = float(np.mean(mdes))
    # A true difference of 0.08 is well above the average detectable effect, so power must exceed 80 %.
    assert mde < 0.08
    assert detected / 80 > 0.85


def test_several_samples_per_item_never_widen_the_interval_beyond_that_of_the_items():
    rare = pd.concat([arm([k == 0 and i == 0 for i in range(12)]).assign(sample=k) for k in range(4)])
    got = accuracy(rare)
    expected = stats.binomtest(1, 48).statistic
    wilson = stats.binomtest(0, 12).proportion_ci(method="wilson")
    assert got.value == pytest.approx(expected)
    assert wilson.low <= got.low and got.high < wilson.high + 0.05


def test_samples_that_do_not_depend_on_their_item_narrow_the_interval_like_more_items():
    rng = np.random.default_rng(3)
    got = accuracy(pd.concat([arm(rng.random(400) < 0.2).assign(sample=k) for k in range(4)]))
    wilson = stats.binomtest(round(got.value * 1600), 1600).proportion_ci(method="wilson")
    assert got.high - got.low == pytest.approx(wilson.high - wilson.low, rel=0.15)
