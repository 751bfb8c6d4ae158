"""Verdicts, Holm's correction, and the number of problems that a test needs."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bench.stats.corrections import holm
from bench.stats.decisions import contrast_verdict, items_needed


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


def test_items_needed_grows_with_the_square_of_the_precision():
    assert items_needed(0.05, 0.4) == pytest.approx(items_needed(0.1, 0.4) * 4, abs=4)
    with pytest.raises(ValueError):
        items_needed(0, 0.4)
