"""Students crossed with seeds: what a report says of all students and of each, compared with pandas on the rows."""

import pytest

from bench.report.analysis import analyse

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def means(results, by):
    """The macro mean over benchmarks in points, by arm and further columns."""
    rows = results.verdicts.groupby(["arm", *by, "benchmark"])["correct"].mean()
    return 100 * rows.groupby(["arm", *by]).mean()


def test_every_student_counts_the_same_even_where_a_run_is_missing(two_students, without_figures):
    spec, results = two_students
    results.verdicts = results.verdicts.query("not (student == 'student_b' and seed == 11)")
    content = analyse(spec, results, {})
    expected = means(results, ["student"]).groupby("arm").mean()
    rows = {row["arm"]: row for row in content.tables["leaderboard"].rows}
    assert {arm: row["accuracy"] for arm, row in rows.items()} == {arm: f"{v:.1f}" for arm, v in expected.items()}
    assert {row["runs"] for row in rows.values()} == {"5"}
    assert {row["n"] for row in rows.values()} == {"1200"} and {row["expected"] for row in rows.values()} == {"1440"}
    pooled = {row["id"]: row for row in content.tables["contrasts_pooled"].rows}
    assert pooled["G1"]["difference"] == f"+{expected['teacher+opd'] - expected['teacher+grpo']:.1f}"
    assert pooled["G1"]["runs"] == "5"


def test_each_student_has_a_row_of_its_own(two_students, without_figures):
    spec, results = two_students
    content = analyse(spec, results, {})
    rows = {(row["id"], row["student"]): row for row in content.tables["contrasts_students"].rows}
    assert set(rows) == {(c, s) for c in ("G1", "G2", "match") for s in ("student_a", "student_b")}
    expected = means(results, ["student"])
    for student in ("student_a", "student_b"):
        gain = expected["teacher+opd", student] - expected["teacher+grpo", student]
        row = rows["G1", student]
        assert row["difference"] == f"{gain:+.1f}" and (row["seeds"], row["n"]) == ("3", "720")
        assert float(row["low"]) < gain < float(row["high"])
    assert "3 seeds for each of 2 base students" in content.lead
    assert any("about 2 base students (student_a, student_b)" in text for text in content.caveats)


def test_a_gap_between_students_does_not_widen_the_interval(two_students, without_figures):
    """The other student loses what the first one gains: the spread over seeds is small, that over students is large."""
    spec, results = two_students
    verdicts = results.verdicts
    swapped = {"teacher+opd": "teacher+grpo", "teacher+grpo": "teacher+opd"}
    other = verdicts["student"] == "student_b"
    results.verdicts = verdicts.assign(arm=verdicts["arm"].where(~other, verdicts["arm"].replace(swapped)))
    content = analyse(spec, results, {})
    row = next(row for row in content.tables["contrasts_pooled"].rows if row["id"] == "G1")
    assert float(row["high"]) - float(row["low"]) < 10
    students = {row["student"]: row for row in content.tables["contrasts_students"].rows if row["id"] == "G1"}
    assert float(students["student_a"]["difference"]) > 10 and float(students["student_b"]["difference"]) < -10
    assert any(text.startswith("G1: the students disagree (student_a +1") for text in content.caveats)


def test_one_seed_per_student_says_nothing_about_other_runs(two_students, without_figures):
    spec, results = two_students
    for name in ("verdicts", "curves", "stages"):
        setattr(results, name, getattr(results, name).query("seed == 11"))
    content = analyse(spec, results, {})
    assert all("one seed per student, so the interval covers other problems" in s.text for s in content.statements)
    assert {row["runs"] for row in content.tables["leaderboard"].rows} == {"2"}


def test_with_one_student_there_is_no_table_of_students(cold_start, without_figures):
    spec, results = cold_start
    assert analyse(spec, results, {}).tables["contrasts_students"].rows == ()


@pytest.mark.slow
def test_the_forest_has_a_line_for_each_student(two_students):
    spec, results = two_students
    svg = analyse(spec, results, {}).figures["forest"].svg
    assert svg.count(b"<!-- student_a -->") == svg.count(b"<!-- student_b -->") == 3
