"""Verdicts, Holm's correction, and the numbers of seeds and problems that a test needs."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.stats.corrections import holm
from bench.stats.decisions import contrast_verdict, items_needed, seeds_needed


def test_holm_follows_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holm_agrees_with_statsmodels():
    p_values = [*np.random.default_rng(4).random(40) ** 3, 0.0, 1.0, 0.5, 0.5]
    assert holm(p_values) == np.asarray(multipletests(p_values, method="holm")[1]).tolist()


def test_only_three_verdicts_exist():
    assert contrast_verdict(0.02, 0.01) == "better"
    assert contrast_verdict(-0.02, 0.01) == "worse"
    assert contrast_verdict(0.02, 0.05) == "not resolved"
    assert contrast_verdict(0.0, 0.0) == "not resolved"


def test_seeds_needed_reaches_the_power_that_simulation_shows():
    seeds = seeds_needed(effect=2.0, sd=1.5)
    rng = np.random.default_rng(0)

    def power(n: int) -> float:
        test: Any = stats.ttest_1samp(rng.normal(2.0, 1.5, (4000, n)), 0, axis=1)
        return float(np.mean(test.pvalue < 0.05))

    assert seeds is not None
    assert power(seeds) > 0.78
    assert power(seeds - 1) < 0.80


def test_no_number_of_seeds_overcomes_too_few_items():
    assert seeds_needed(effect=1.0, sd=1.0, item_error=2.0) is None
    with pytest.raises(ValueError):
        seeds_needed(effect=0, sd=1)


def test_items_needed_grows_with_the_square_of_the_precision():
    assert items_needed(0.05, 0.4) == pytest.approx(items_needed(0.1, 0.4) * 4, abs=4)
    with pytest.raises(ValueError):
        items_needed(0, 0.4)
