"""What a plan says about the power of its contrasts."""

import pytest
from scipy import stats

from bench.matrix.plan import make_plan
from bench.matrix.power import planned_contrasts

CONTRASTS = """\
    - id: match
      test: {arm: teacher+grpo_opd, over: teacher+grpo}
      against: {arm: mismatch+grpo_opd, over: mismatch+grpo}
      min_effect: 2.0pp
      expected_effect: 10pp
      planned_sd: 6pp
"""


@pytest.fixture
def planned(world):
    """The fake matrix with two students, two contrasts and a planned spread."""
    matrix, store = world
    text = matrix.read_text().replace("analysis:\n", "analysis:\n  planned_sd: 4pp\n")
    matrix.write_text(text + CONTRASTS)
    profile = matrix.parent / "profiles" / "small.yaml"
    profile.write_text(profile.read_text().replace("student: ./student_a", "student: [./student_a, ./student_b]"))
    return matrix, store


def power(effect, sd, students, seeds, level):
    """The power of the t test with the runs nested in students."""
    df, error = students * (seeds - 1), sd / (students * seeds) ** 0.5
    return stats.nct.sf(stats.t.ppf(1 - level / 2, df), df, effect / error)


def test_each_contrast_has_its_power_at_the_level_of_the_first_of_all_contrasts(planned):
    plain, gains = planned_contrasts(make_plan(*planned))
    assert (plain.id, plain.comparison) == ("H1", "teacher+grpo_opd over teacher+grpo")
    assert (plain.students, plain.seeds, plain.runs, plain.df, plain.level) == (2, 2, 4, 2, 0.025)
    assert (plain.sd, plain.effect, gains.sd, gains.effect) == (0.04, 0.02, 0.06, 0.1)
    assert gains.comparison.startswith("the gain of teacher+grpo_opd over teacher+grpo, less the gain of mismatch")
    for contrast in (plain, gains):
        assert contrast.mde is not None and contrast.sd is not None and contrast.seeds_needed is not None
        assert power(contrast.mde, contrast.sd, 2, 2, 0.025) == pytest.approx(0.8, abs=1e-3)
        needed = contrast.seeds_needed
        reached = [power(contrast.effect, contrast.sd, 2, seeds, 0.025) for seeds in (needed - 1, needed)]
        assert reached[0] < 0.8 <= reached[1]


def test_more_seeds_find_smaller_differences(planned):
    few, many = (planned_contrasts(make_plan(*planned, seeds=seeds))[0] for seeds in ([1, 2], [1, 2, 3, 4]))
    assert few.mde is not None and many.mde is not None and many.mde < few.mde / 2
    assert few.seeds_needed == many.seeds_needed


def test_the_error_of_the_problems_is_added(planned):
    matrix, store = planned
    before = planned_contrasts(make_plan(matrix, store))
    matrix.write_text(matrix.read_text().replace("planned_sd: 4pp", "planned_sd: 4pp\n  planned_item_error: 3pp"))
    after = planned_contrasts(make_plan(matrix, store))
    assert all(b.mde and a.mde and a.mde > b.mde for a, b in zip(after, before, strict=True))
    assert after[0].seeds_needed is None, "an error of 3 points hides 2 points, however many seeds there are"


def test_one_seed_per_student_shows_no_spread(planned):
    contrast = planned_contrasts(make_plan(*planned, seeds=[1]))[1]
    assert (contrast.runs, contrast.df, contrast.mde) == (2, 0, None) and contrast.seeds_needed


def test_a_contrast_without_all_of_its_arms_has_no_runs_but_counts_for_the_correction(planned):
    plain, gains = planned_contrasts(make_plan(*planned, only=["teacher+grpo_opd", "teacher+grpo"]))
    assert (plain.runs, gains.runs, gains.mde) == (4, 0, None) and plain.level == 0.025


def test_without_a_correction_every_contrast_has_the_whole_level(planned):
    matrix, store = planned
    matrix.write_text(matrix.read_text().replace("planned_sd: 4pp", "planned_sd: 4pp\n  correction: none"))
    assert {contrast.level for contrast in planned_contrasts(make_plan(matrix, store))} == {0.05}


def test_without_a_planned_spread_nothing_is_promised(world):
    (contrast,) = planned_contrasts(make_plan(*world))
    assert (contrast.sd, contrast.mde, contrast.seeds_needed) == (None, None, None)
