"""Differences of gains: compared with pandas on the rows, and in every place of a report."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.report.analysis import analyse
from bench.report.sides import comparison
from tests.bench.report.conftest import Arm, Contrast, Side

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def difference_of_gains(verdicts):
    """teacher (opd - grpo) - mismatch (opd - grpo) of each run and benchmark."""
    means = verdicts.groupby(["arm", "student", "seed", "benchmark"])["correct"].mean().unstack("arm")
    return means["teacher+opd"] - means["teacher+grpo"] - means["mismatch+opd"] + means["mismatch+grpo"]


def test_a_difference_of_gains_is_the_difference_of_the_differences(two_students, without_figures):
    spec, results = two_students
    expected = 100 * difference_of_gains(results.verdicts).groupby(["student", "seed"]).mean()
    content = analyse(spec, results, {})
    pooled = {row["id"]: row for row in content.tables["contrasts_pooled"].rows}
    row = pooled["match"]
    assert row["difference"] == f"+{expected.mean():.1f}"
    assert (row["test"], row["against"]) == ("teacher+opd over teacher+grpo", "mismatch+opd over mismatch+grpo")
    assert (row["n"], row["missing"], row["runs"]) == ("1440", "0", "6")
    assert float(row["p_holm"]) >= float(row["p"].removeprefix("<"))
    students = {row["student"]: row for row in content.tables["contrasts_students"].rows if row["id"] == "match"}
    by_student = expected.groupby("student").mean()
    assert {name: row["difference"] for name, row in students.items()} == {
        n: f"+{v:.1f}" for n, v in by_student.items()
    }
    families = [row for row in content.tables["contrasts"].rows if row["id"] == "match"]
    assert len(families) == 1 + results.verdicts["benchmark"].nunique()


def test_its_interval_is_wider_than_that_of_one_gain(two_students, without_figures):
    spec, results = two_students
    rows = {row["id"]: row for row in analyse(spec, results, {}).tables["contrasts_pooled"].rows}
    widths = {name: float(row["high"]) - float(row["low"]) for name, row in rows.items()}
    assert widths["match"] > max(widths["G1"], widths["G2"])


def test_its_sentence_says_what_gains_more(two_students, without_figures):
    spec, results = two_students
    spec.analysis.contrasts += (Contrast("back", spec.analysis.contrasts[2].against, spec.analysis.contrasts[2].test),)
    texts = {s.id: s for s in analyse(spec, results, {}).statements}
    start = "The gain of opd over grpo is "
    assert texts["match"].text.startswith(start)
    assert " points larger after the cold start teacher than after the cold start mismatch, 95 % interval [+" in (
        texts["match"].text
    )
    assert " points smaller after the cold start mismatch than after the cold start teacher" in texts["back"].text
    assert (texts["match"].verdict, texts["back"].verdict) == ("better", "worse")


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ({}, "The gain of a over b is 5.0 points larger than the gain of c over d"),
        (
            {"a": ("x", "hi"), "b": ("x", "lo"), "c": ("y", "hi"), "d": ("y", "lo")},
            "The gain of hi over lo is 5.0 points larger with base model x than with base model y",
        ),
        # The second gain is another one, so that the two have no name in common.
        (
            {"a": ("x", "hi"), "b": ("x", "lo"), "c": ("y", "hi"), "d": ("y", "no")},
            "The gain of a over b is 5.0 points larger than the gain of c over d",
        ),
    ],
)
def test_gains_without_a_common_axis_are_named_by_their_arms(levels, sentence):
    axes = ("base_model", "weight")
    arms = [Arm(name, levels=dict(zip(axes, levels.get(name, ()), strict=False))) for name in "abcd"]
    words = comparison(Contrast("i", Side("a", "b"), Side("c", "d")), arms)
    assert words.result(0.05) == sentence
    assert words.pair == "the gain of a over b, less the gain of c over d"


def test_without_an_arm_it_is_not_resolved_and_says_why(two_students, without_figures):
    spec, results = two_students
    results.verdicts = results.verdicts.query("arm != 'mismatch+grpo'")
    content = analyse(spec, results, {})
    statement = next(s for s in content.statements if s.id == "match")
    assert statement.verdict == "not resolved"
    assert statement.text.endswith("no responses of mismatch+grpo, so nothing can be said")
    row = next(row for row in content.tables["contrasts_pooled"].rows if row["id"] == "match")
    assert (row["difference"], row["verdict"]) == ("–", "not resolved")


def test_responses_that_one_of_four_arms_lacks_are_left_out_and_counted(two_students, without_figures):
    spec, results = two_students
    lost = results.verdicts.query("arm == 'mismatch+grpo' and seed == 11").index[:30]
    results.verdicts = results.verdicts.drop(lost)
    row = next(r for r in analyse(spec, results, {}).tables["contrasts_pooled"].rows if r["id"] == "match")
    assert (row["n"], row["missing"]) == ("1410", "30")


def test_a_claim_about_gains_is_judged_by_its_contrast(two_students, without_figures):
    spec, results = two_students
    (row,) = analyse(spec, results, {}).tables["claims"].rows
    assert row["status"] == "reproduced" and row["registered"] == "match"
    assert row["arms"] == (
        "the gain of teacher+opd over teacher+grpo, less the gain of mismatch+opd over mismatch+grpo"
    )


@pytest.mark.slow
def test_the_forest_has_a_line_for_the_difference_of_gains(two_students):
    spec, results = two_students
    figure = analyse(spec, results, {}).figures["forest"]
    assert "match: opd over grpo: teacher − mismatch" in figure.svg.decode()
    assert "match the gain of teacher+opd over teacher+grpo, less the gain of mismatch+opd" in figure.alt


def test_gains_that_are_equal_are_not_resolved(two_students, without_figures):
    spec, results = two_students
    rows = results.verdicts
    copied = [
        rows[rows["arm"] == f"teacher+{objective}"].assign(arm=f"mismatch+{objective}") for objective in ("opd", "grpo")
    ]
    results.verdicts = rows[rows["arm"].str.startswith("teacher")]
    results = replace(results, verdicts=pd.concat([results.verdicts, *copied], ignore_index=True))
    row = next(r for r in analyse(spec, results, {}).tables["contrasts_pooled"].rows if r["id"] == "match")
    assert (row["difference"], row["p"], row["verdict"]) == ("0.0", "1.000", "not resolved")
    assert np.isclose(float(row["low"]), -float(row["high"]))
