"""The two-way variance, checked against the ANOVA estimator of a balanced table and by simulation."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.stats.cells import Cells
from bench.stats.simulate import GRID, coverage
from bench.stats.variance import Spread, mean_and_spread


def crossed(table: np.ndarray) -> Cells:
    """Cells of one benchmark from a seeds x items table."""
    seed, item = np.indices(table.shape)
    return Cells(table.ravel(), np.zeros(table.size, int), seed.ravel(), item.ravel(), table.shape[1], table.size)


def test_balanced_table_gives_the_anova_variance_of_the_mean():
    table = np.random.default_rng(3).normal(size=(4, 30)) + np.arange(4)[:, None] + np.linspace(0, 3, 30)
    seeds, items = table.shape
    grand = table.mean()
    by_seed, by_item = table.mean(1), table.mean(0)
    ms_seed = items * np.sum((by_seed - grand) ** 2) / (seeds - 1)
    ms_item = seeds * np.sum((by_item - grand) ** 2) / (items - 1)
    rest = table - by_seed[:, None] - by_item + grand
    ms_cell = np.sum(rest**2) / ((seeds - 1) * (items - 1))
    value, spread = mean_and_spread(crossed(table))
    assert value == pytest.approx(grand)
    assert spread.seed == pytest.approx(ms_seed / table.size)
    assert spread.item == pytest.approx((ms_item - ms_cell) / table.size)


def test_seeds_that_repeat_each_other_add_no_information():
    one = np.random.default_rng(0).integers(0, 2, (1, 50)).astype(float)
    _, single = mean_and_spread(crossed(one))
    _, triple = mean_and_spread(crossed(np.repeat(one, 3, axis=0)))
    assert triple.seed == pytest.approx(0, abs=1e-15)
    assert triple.item == pytest.approx(single.item)
    assert single.item == pytest.approx(one.var(ddof=1) / 50)


def test_clustered_items_have_the_variance_of_cluster_means():
    cells = Cells(
        score=np.array([1.0, 1, 0, 0, 1, 1]),
        stratum=np.zeros(6, int),
        seed=np.zeros(6, int),
        cluster=np.array([0, 0, 1, 1, 2, 2]),
        items=6,
        samples=6,
    )
    _, spread = mean_and_spread(cells)
    assert spread.item == pytest.approx(np.var([1, 0, 1], ddof=1) / 3)


def test_macro_mean_weighs_benchmarks_equally_and_micro_weighs_items_equally():
    cells = Cells(
        score=np.array([1.0, 1, 0, 0, 0, 0]),
        stratum=np.array([0, 0, 1, 1, 1, 1]),
        seed=np.zeros(6, int),
        cluster=np.arange(6),
        items=6,
        samples=6,
    )
    assert mean_and_spread(cells, "macro")[0] == pytest.approx(0.5)
    assert mean_and_spread(cells, "micro")[0] == pytest.approx(1 / 3)


def test_items_that_all_agree_still_leave_an_interval():
    value, spread = mean_and_spread(crossed(np.zeros((3, 40))))
    assert value == 0
    assert 0 < spread.reach(0.975) < 0.06


def test_seeds_with_equal_means_by_chance_do_not_close_the_interval():
    table = np.array([[1.0, 0, 1, 0] * 10, [0.0, 1, 0, 1] * 10, [1.0, 1, 0, 0] * 10])
    assert np.ptp(table.mean(1)) == 0
    _, spread = mean_and_spread(crossed(table))
    alone = 1.96 * np.sqrt(0.25 / table.size)
    assert spread.reach(0.975) > 0.6 * alone


def test_a_single_item_has_no_known_spread():
    _, spread = mean_and_spread(crossed(np.array([[1.0], [0.0]])))
    assert spread.reach(0.975) == float("inf")
    assert spread.p_value(0.5) == 1.0


def test_pure_seed_spread_gives_the_t_test_of_seed_means():
    seeds = np.array([0.02, 0.05, 0.11])
    _, spread = mean_and_spread(crossed(np.repeat(seeds[:, None], 5000, axis=1)))
    expected: Any = stats.ttest_1samp(seeds, 0)
    assert spread.p_value(seeds.mean()) == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval(0.95)
    assert spread.reach(0.975) == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_p_value_and_interval_agree_on_what_is_significant():
    spread = Spread(seed=1e-4, item=2e-4, seed_df=2, item_df=99)
    edge = spread.reach(0.975)
    assert spread.p_value(edge) == pytest.approx(0.05, abs=1e-9)
    assert spread.p_value(edge * 1.01) < 0.05 < spread.p_value(edge * 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_covers_its_nominal_share_and_equal_arms_raise_few_false_alarms(seeds):
    results = [coverage(s, repetitions=250) for s in GRID if s.seeds == seeds]
    assert 0.94 <= np.mean([r.covered for r in results]) <= 0.97
    assert min(r.covered for r in results) > 0.91
    assert np.mean([r.excluded_zero for r in results if r.setting.effect == 0]) <= 0.055
