"""What a report says about the differences that a contrast finds, and about the seeds that it would need."""

import re

import pytest

from bench.report.analysis import analyse
from bench.report.contrasts import contrast_results
from bench.report.tables import primary_rows
from bench.stats.power import power


@pytest.fixture
def open_contrast(cold_start, without_figures):
    """The cold-start matrix with its one contrast that is not resolved, alone or among four others."""
    spec, results = cold_start
    for contrast in spec.analysis.contrasts:
        contrast.min_effect = 0.06
    return spec, results


def row_of(content, name="H5"):
    return next(row for row in content.tables["contrasts_pooled"].rows if row["id"] == name)


def test_the_mde_is_found_with_the_stated_power_at_the_corrected_level(open_contrast):
    spec, results = open_contrast
    c = contrast_results(spec, primary_rows(spec, results), {})[-1]
    assert c.level == pytest.approx(0.01) and c.difference is not None
    assert power(c.mde, c.difference.spread, 0.01) == pytest.approx(0.8, abs=1e-3)
    assert c.mde > c.difference.mde, "the MDE of an uncorrected test"
    assert row_of(analyse(spec, results, {}))["mde"] == f"{100 * c.mde:.1f}"


def test_the_sentence_names_level_and_seeds_of_an_open_contrast(open_contrast):
    spec, results = open_contrast
    content = analyse(spec, results, {})
    text = next(s.text for s in content.statements if s.id == "H5")
    row = row_of(content)
    assert f"such a comparison finds effects of {row['mde']} points or more (80 % power at the level 0.01)" in text
    assert f"; 6.0 points would take about {row['seeds_needed']} seeds per student" in text
    assert int(row["seeds_needed"]) > 3
    assert all(row_of(content, name)["seeds_needed"] == "–" for name in ("H1", "H2", "H3", "H4"))
    assert not any("80 % power" in text for text in content.caveats)


def test_without_a_correction_the_level_is_five_per_cent_and_the_mde_is_smaller(open_contrast):
    spec, results = open_contrast
    corrected = row_of(analyse(spec, results, {}))
    spec.analysis.correction = "none"
    content = analyse(spec, results, {})
    assert float(row_of(content)["mde"]) < float(corrected["mde"])
    assert int(row_of(content)["seeds_needed"]) < int(corrected["seeds_needed"])
    assert any("80 % power at the level 0.05" in s.text for s in content.statements)


def test_an_expected_effect_takes_the_place_of_the_margin(open_contrast):
    spec, results = open_contrast
    before = int(row_of(analyse(spec, results, {}))["seeds_needed"])
    spec.analysis.contrasts[-1].expected_effect = 0.1
    content = analyse(spec, results, {})
    assert int(row_of(content)["seeds_needed"]) < before
    assert re.search(r"; 10\.0 points would take about \d+ seeds per student", content.statements[-1].text)


def test_the_spread_over_runs_is_that_of_their_differences(two_students, without_figures):
    """Two students with three seeds each: the standard deviation within students, pooled over them."""
    spec, results = two_students
    means = results.verdicts.groupby(["arm", "student", "seed", "benchmark"])["correct"].mean()
    runs = means.groupby(["arm", "student", "seed"]).mean().unstack("arm")
    within = (runs["teacher+opd"] - runs["teacher+grpo"]).groupby("student").var().mean()
    row = next(r for r in analyse(spec, results, {}).tables["contrasts"].rows if r["id"] == "G1")
    assert row["sd"] == f"{100 * within**0.5:.1f}"


def test_one_seed_per_student_promises_no_number_of_seeds(open_contrast):
    spec, results = open_contrast
    for name in ("verdicts", "curves", "stages"):
        setattr(results, name, getattr(results, name).query("seed == 11"))
    content = analyse(spec, results, {})
    assert all(row["seeds_needed"] == "–" and row["sd"] == "–" for row in content.tables["contrasts_pooled"].rows)
    assert not any("would take" in s.text or "more seeds" in s.text for s in content.statements)
