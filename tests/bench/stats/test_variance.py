"""The two-way variance, checked against analyses of variance and regressions of other libraries, and by simulation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from bench.stats.cells import Cells
from bench.stats.simulate import GRID, coverage
from bench.stats.variance import Spread, mean_and_spread


def crossed(table: np.ndarray, student: Sequence[int] | None = None) -> Cells:
    """Cells of one benchmark from a runs x items table. ``student``: the student of each run; default: one student."""
    run, item = np.indices(table.shape)
    students = np.zeros(len(table), int) if student is None else np.asarray(student)
    return Cells(
        score=table.ravel(),
        stratum=np.zeros(table.size, int),
        student=students[run].ravel(),
        run=run.ravel(),
        cluster=item.ravel(),
        items=table.shape[1],
        samples=table.size,
    )


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
        student=np.zeros(6, int),
        run=np.zeros(6, int),
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
        student=np.zeros(6, int),
        run=np.zeros(6, int),
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


@pytest.mark.parametrize("student", [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 2, 2]])
def test_pure_run_spread_gives_the_regression_on_students(student):
    """Also where a run is missing, or all but one of a student: least squares with one mean per student."""
    runs = np.random.default_rng(5).normal(0.04, 0.02, len(student)) + 0.3 * np.asarray(student)
    value, spread = mean_and_spread(crossed(np.repeat(runs[:, None], 5000, axis=1), student))
    students = max(student) + 1
    fit: Any = sm.OLS(runs, np.eye(students)[student]).fit()
    expected = fit.t_test(np.full(students, 1 / students))
    assert value == pytest.approx(expected.effect.item())
    assert spread.seed_df == expected.df_denom == len(student) - students
    assert spread.seed == pytest.approx(expected.sd.item() ** 2, rel=1e-9)
    assert spread.reach(0.975) == pytest.approx(np.diff(expected.conf_int()).item() / 2, rel=1e-6)


def test_a_balanced_table_of_students_gives_the_anova_of_runs_nested_in_students():
    """One-way ANOVA of the runs in each student by scipy's formulas, and the items crossed with both."""
    rng = np.random.default_rng(8)
    students, seeds, items = 2, 3, 40
    table = rng.normal(size=(students, seeds, items)) + rng.normal(size=(students, seeds, 1))
    table += 2 * rng.normal(size=(students, 1, items)) + np.array([0, 5])[:, None, None]
    value, spread = mean_and_spread(crossed(table.reshape(-1, items), [0] * seeds + [1] * seeds))
    within = [table[s].mean(1).var(ddof=1) for s in range(students)]
    assert value == pytest.approx(table.mean())
    assert spread.seed == pytest.approx(sum(within) / (students**2 * seeds))
    rest = table - table.mean(2, keepdims=True) - table.mean(1, keepdims=True) + table.mean((1, 2), keepdims=True)
    ms_cell = np.sum(rest**2) / (students * (seeds - 1) * (items - 1))
    by_item = table.mean((0, 1)).var(ddof=1) / items
    assert spread.item == pytest.approx(by_item - ms_cell / table.size)
    assert (spread.seed_df, spread.item_df) == (4, items - 1)


def test_students_far_apart_change_nothing_but_the_mean():
    table = np.random.default_rng(2).normal(size=(6, 50))
    student = [0, 0, 0, 1, 1, 1]
    near, spread = mean_and_spread(crossed(table, student))
    far, same = mean_and_spread(crossed(table + 7 * np.array(student)[:, None], student))
    assert far - near == pytest.approx(3.5)
    assert [same.seed, same.item, same.floor] == pytest.approx([spread.seed, spread.item, spread.floor])


def test_one_seed_for_each_of_several_students_leaves_the_items_alone():
    table = np.random.default_rng(4).normal(size=(3, 60))
    _, spread = mean_and_spread(crossed(table, [0, 1, 2]))
    assert (spread.seed, spread.seed_df) == (0, 0)
    assert spread.item == pytest.approx(table.mean(0).var(ddof=1) / 60)


def test_a_student_without_a_benchmark_breaks_nothing():
    """The second student answers the first benchmark alone, so the second benchmark is the first student's."""
    cells = Cells(
        score=np.array([1.0, 0, 1, 1, 1, 0, 0, 0]),
        stratum=np.array([0, 0, 1, 1, 0, 0, 0, 0]),
        student=np.array([0, 0, 0, 0, 1, 1, 1, 1]),
        run=np.array([0, 0, 0, 0, 1, 1, 2, 2]),
        cluster=np.array([0, 1, 2, 3, 0, 1, 0, 1]),
        items=4,
        samples=8,
    )
    value, spread = mean_and_spread(cells)
    assert value == pytest.approx((np.mean([0.5, 0.25]) + 1) / 2)
    assert spread.seed_df == 1 and 0 < spread.reach(0.975) < np.inf
    assert cells.weights("macro").sum() == pytest.approx(1) and cells.weights("micro").sum() == pytest.approx(1)


def test_p_value_and_interval_agree_on_what_is_significant():
    spread = Spread(seed=1e-4, item=2e-4, seed_df=2, item_df=99)
    edge = spread.reach(0.975)
    assert spread.p_value(edge) == pytest.approx(0.05, abs=1e-9)
    assert spread.p_value(edge * 1.01) < 0.05 < spread.p_value(edge * 0.99)


@pytest.mark.slow
@pytest.mark.parametrize(("students", "seeds"), [(1, 3), (1, 5), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_the_interval_covers_its_nominal_share_and_equal_arms_raise_few_false_alarms(students, seeds):
    """Several students differ by 20 points in accuracy and by 20 points in the true difference."""
    results = [coverage(s, repetitions=250) for s in GRID if (s.students, s.seeds) == (students, seeds)]
    assert 0.94 <= np.mean([r.covered for r in results]) <= 0.97
    assert min(r.covered for r in results) > 0.91
    assert np.mean([r.excluded_zero for r in results if r.setting.effect == 0]) <= 0.055
