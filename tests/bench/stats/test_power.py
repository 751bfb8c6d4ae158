"""Power, checked against the noncentral t distribution of scipy and against simulated experiments."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.stats.corrections import HOLM, UNCORRECTED
from bench.stats.power import detectable_effect, planned_spread, power, seeds_needed
from bench.stats.variance import Spread, mean_and_spread
from tests.bench.stats.test_variance import crossed


def t_test_power(effect: float, sd: float, students: int, seeds: int, alpha: float) -> float:
    """The power of the t test of the mean over runs nested in students, from the noncentral t distribution."""
    df, error = students * (seeds - 1), sd / (students * seeds) ** 0.5
    critical = stats.t.ppf(1 - alpha / 2, df)
    noncentral: Any = stats.nct(df, effect / error)
    # scipy gives NaN for the lower tail where it is negligible.
    return float(noncentral.sf(critical) + np.nan_to_num(noncentral.cdf(-critical)))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
@pytest.mark.parametrize(("students", "seeds"), [(1, 2), (1, 3), (2, 2), (2, 3), (3, 5)])
def test_without_an_item_part_the_power_is_that_of_the_t_test(students, seeds, alpha):
    spread = planned_spread(0.04, students, seeds)
    for effect in (0.001, 0.02, 0.05, 0.2):
        expected = t_test_power(effect, 0.04, students, seeds, alpha)
        assert power(effect, spread, alpha) == pytest.approx(expected, abs=5e-4)
    mde = detectable_effect(spread, alpha)
    assert t_test_power(mde, 0.04, students, seeds, alpha) == pytest.approx(0.8, abs=5e-4)


def test_without_a_run_part_the_power_is_that_of_the_z_test():
    spread = Spread(0.0, 0.01**2, 0, 10**6)
    quantiles = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable_effect(spread) == pytest.approx(0.01 * quantiles, rel=1e-3)


def test_without_an_effect_the_power_is_the_level():
    assert power(0.0, planned_spread(0.04, 2, 3), 0.01) == pytest.approx(0.01, abs=1e-4)


def test_an_unknown_spread_finds_nothing_and_none_finds_everything():
    assert detectable_effect(Spread(0.0, np.inf, 2, 1)) == np.inf
    assert detectable_effect(Spread(0.0, 0.0, 2, 99)) == 0


def simulated_power(effect: float, students: int, seeds: int, sd: float, gain_sd: float, alpha: float) -> float:
    """The share of experiments whose contrast is found. The gain of an item has the standard deviation gain_sd."""
    rng = np.random.default_rng(12)
    runs, items, found, repetitions = students * seeds, 400, 0, 600
    student = [s for s in range(students) for _ in range(seeds)]
    place = 0.1 * (np.array(student)[:, None] - (students - 1) / 2)
    for _ in range(repetitions):
        table = effect + place + rng.normal(0, gain_sd, items) + rng.normal(0, sd, (runs, 1))
        value, spread = mean_and_spread(crossed(table, student))
        found += spread.p_value(value) < alpha
    return found / repetitions


@pytest.mark.parametrize(("students", "seeds"), [(1, 4), (2, 3)])
@pytest.mark.parametrize("gain_sd", [0.02, 0.4])
def test_simulated_contrasts_with_the_planned_spread_are_found_as_often_as_planned(students, seeds, gain_sd):
    """At the level of the first of five contrasts. Two students differ by 10 points in the true difference."""
    alpha, sd = 0.05 * HOLM.strictest(5), 0.03
    spread = planned_spread(sd, students, seeds, item_error=gain_sd / 400**0.5)
    mde = detectable_effect(spread, alpha)
    for effect in (mde, mde / 2):
        simulated = simulated_power(effect, students, seeds, sd, gain_sd, alpha)
        assert simulated == pytest.approx(power(effect, spread, alpha), abs=0.05)


@pytest.mark.parametrize(("students", "alpha"), [(1, 0.05), (2, 0.01)])
def test_the_seeds_needed_are_the_fewest_that_are_enough(students, alpha):
    seeds = seeds_needed(0.03, planned_spread(0.04, students, 2), students, 2 * students, alpha)
    assert seeds is not None
    powers = [t_test_power(0.03, 0.04, students, number, alpha) for number in (seeds - 1, seeds)]
    assert powers[0] < 0.8 <= powers[1]


def test_the_seeds_needed_do_not_depend_on_the_number_of_runs_behind_the_spread():
    needed = {seeds_needed(0.03, planned_spread(0.04, 2, seeds, 0.005), 2, 2 * seeds) for seeds in (2, 3, 9)}
    assert len(needed) == 1


def test_equal_runs_do_not_promise_that_two_seeds_are_enough():
    equal = Spread(0.0, 0.0, 2, 600, floor=0.01**2)
    assert detectable_effect(equal) == pytest.approx(detectable_effect(Spread(0.0, 0.01**2, 0, 600)), rel=1e-3)
    assert seeds_needed(0.02, equal, 1, 3) is None, "more seeds do not add problems"
    assert seeds_needed(0.02, replace(equal, floor=0.0), 1, 3) == 2


def test_no_number_of_seeds_makes_up_for_too_few_problems():
    assert seeds_needed(0.01, planned_spread(0.01, 1, 3, item_error=0.02), 1, 3) is None
    with pytest.raises(ValueError, match="effect of 0"):
        seeds_needed(0, planned_spread(0.01, 1, 3), 1, 3)


@pytest.mark.parametrize("correction", [HOLM, UNCORRECTED], ids=lambda correction: correction.name)
def test_the_strictest_step_is_the_level_of_the_smallest_p_value(correction):
    level = 0.05 * correction.strictest(5)
    assert correction.function([level * 0.999, 0.5, 0.5, 0.5, 0.5])[0] < 0.05
    assert correction.function([level * 1.001, 0.5, 0.5, 0.5, 0.5])[0] > 0.05
