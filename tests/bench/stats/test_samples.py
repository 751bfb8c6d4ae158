"""Metrics over several samples per problem, checked against all possible draws."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from bench.stats.estimates import accuracy
from bench.stats.samples import pass_at, sample_metrics


def rows(items: list[list[tuple[str, str]]]) -> pd.DataFrame:
    """(state, normalised) of each sample of each item."""
    return pd.DataFrame(
        {
            "benchmark": "b",
            "id": f"q{number}",
            "cluster": f"q{number}",
            "student": "",
            "seed": 0,
            "sample": sample,
            "state": state,
            "correct": state == "right",
            "normalised": answer,
        }
        for number, item in enumerate(items)
        for sample, (state, answer) in enumerate(item)
    )


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_is_the_share_of_draws_without_replacement_with_a_right_answer(n):
    for right in range(n + 1):
        samples = [True] * right + [False] * (n - right)
        for tries in range(1, n + 1):
            draws = list(combinations(samples, tries))
            got = pass_at(np.array([n]), np.array([right]), tries)[0]
            assert got == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


RIGHT, WRONG, NONE = ("right", "1"), ("wrong", "2"), ("unparsed", "")


def test_measures_of_four_samples_by_hand():
    table = rows([[RIGHT, RIGHT, WRONG, WRONG], [WRONG, RIGHT, NONE, NONE], [NONE] * 4, [RIGHT, NONE, NONE, NONE]])
    metrics = sample_metrics(table, 4)
    assert list(metrics) == ["avg@4", "pass@2", "pass@4", "maj@4"]
    assert metrics["avg@4"].value == pytest.approx(4 / 16) and metrics["avg@4"].n == 16
    # Of two draws from four: both right samples are missed in 1 of 6, a single right sample in 3 of 6.
    assert metrics["pass@2"].value == pytest.approx((5 / 6 + 1 / 2 + 0 + 1 / 2) / 4)
    assert metrics["pass@4"].value == pytest.approx(3 / 4)
    # A tie goes to the first answer. An unreadable answer has no vote. A problem without a vote is wrong.
    assert metrics["maj@4"].value == pytest.approx(2 / 4)
    assert all(measure.low <= measure.value <= measure.high for measure in metrics.values())


def test_equal_answers_are_counted_together_and_a_later_majority_wins():
    table = rows([[("wrong", "2"), ("right", "1"), ("wrong", "3"), ("right", "1")], [WRONG, WRONG, WRONG, RIGHT]])
    assert sample_metrics(table, 4)["maj@4"].value == pytest.approx(1 / 2)


def test_the_order_of_the_rows_does_not_matter_to_ties():
    table = rows([[WRONG, RIGHT]] * 3)
    assert sample_metrics(table.iloc[::-1], 2)["maj@2"].value == 0


def test_items_with_too_few_samples_are_left_out_of_pass_and_counted():
    table = rows([[RIGHT, WRONG], [RIGHT], [WRONG, WRONG]])
    metrics = sample_metrics(table, 2)
    assert (metrics["pass@2"].items, metrics["pass@2"].value) == (2, 0.5)
    assert metrics["avg@2"].n == 5 and metrics["maj@2"].items == 3


def test_one_sample_has_one_metric_which_is_the_accuracy():
    table = rows([[RIGHT], [WRONG], [WRONG]])
    assert sample_metrics(table, 1) == {"avg@1": accuracy(table)}


def test_the_mde_of_an_accuracy_is_that_of_two_independent_arms():
    """The z-approximation of the power of a two-sample comparison with n = 1000 per arm."""
    table = rows([[RIGHT], [WRONG]] * 500)
    expected = (1.95996 + 0.84162) * (2 * 0.25 / 1000) ** 0.5
    assert sample_metrics(table, 1)["avg@1"].mde == pytest.approx(expected, rel=5e-3)
