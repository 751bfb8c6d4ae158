"""A report from invented results: its content in every format, and what it says about missing results."""

import csv
import io
import json
import re

import pandas as pd
import pytest

from bench.errors import ConfigurationError
from bench.report import build_report
from bench.report.analysis import analyse
from bench.report.claims import load_paper

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


@pytest.fixture
def report(cold_start_report):
    return cold_start_report


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_every_promised_file_is_written(report):
    names = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert {"index.html", "report.md", "report.json"} <= names
    assert {"leaderboard.csv", "contrasts.csv", "families.csv", "claims.csv"} <= names
    figures = {name for name in names if name.startswith("figures/")}
    assert figures == {f"figures/{name}.svg" for name in ("accuracy", "forest", "families", "curves")}


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(cold_start, report, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    spec, results = cold_start
    build_report(spec, results, again)
    for path in report.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(report)).read_bytes(), path.name


def test_the_page_loads_nothing_from_outside(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert " style=" not in page and "onclick" not in page


def test_all_formats_show_the_same_digits(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    text = (report / "report.md").read_text(encoding="utf-8")
    tables = json.loads((report / "report.json").read_text(encoding="utf-8"))["tables"]
    for name in ("leaderboard", "contrasts", "families"):
        assert rows(report / f"{name}.csv") == tables[name]["rows"]
    for row in tables["leaderboard"]["rows"]:
        assert f"| {row['arm']} | {row['rank']} | {row['accuracy']} | {row['low']} | {row['high']} |" in text
        assert f">{row['accuracy']}</td>" in page
    for row in tables["contrasts"]["rows"]:
        if row["scope"] == "macro mean":
            sentence = f"{row['difference']} points, 95 % interval [{row['low']}, {row['high']}], Holm p "
            assert sentence in page


def test_leaderboard_numbers_follow_from_the_verdicts(cold_start, report):
    verdicts = cold_start[1].verdicts
    by_family = verdicts.groupby(["arm", "benchmark"])["correct"].mean().groupby("arm").mean() * 100
    table = rows(report / "leaderboard.csv")
    assert {row["arm"]: row["accuracy"] for row in table} == {a: f"{round(v, 9):.1f}" for a, v in by_family.items()}
    assert [row["rank"] for row in table] == [str(i) for i in range(1, len(table) + 1)]
    assert {(row["n"], row["expected"], row["runs"]) for row in table} == {("960", "960", "3")}


def test_large_effects_are_resolved_and_an_absent_one_is_not(report):
    pooled = {row["id"]: row for row in rows(report / "contrasts.csv") if row["scope"] == "macro mean"}
    assert {pooled[name]["verdict"] for name in ("H1", "H2", "H3", "H4")} == {"better"}
    assert pooled["H5"]["verdict"] == "not resolved"
    claims = {row["arms"]: row["status"] for row in rows(report / "claims.csv")}
    assert claims["teacher+grpo_opd over teacher+grpo"] == "reproduced"
    assert claims["teacher+sft_only over base"] == "contradicted"  # in the invented results SFT is above the base


def test_a_synthetic_world_is_named_in_the_header_and_every_caption(report):
    world = "small world: synthetic problems, tiny models"
    page = (report / "index.html").read_text(encoding="utf-8")
    captions = re.findall(r"<(?:fig)?caption>(.*?)</(?:fig)?caption>", page)
    assert len(captions) > 8 and all(world in caption for caption in captions)
    assert f'<p class="world">{world}</p>' in page
    assert "smallworld-bars-integer" in page


def test_real_benchmarks_carry_no_such_warning(cold_start, tmp_path, without_figures):
    spec, results = cold_start
    results.verdicts["synthetic"] = False
    build_report(spec, results, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "small world" not in page.lower()
    assert {row["family"] for row in rows(tmp_path / "families.csv")} == set(spec.analysis.primary.over)


def test_missing_responses_are_reported_and_not_counted_as_wrong(cold_start, tmp_path, without_figures):
    spec, results = cold_start
    lost = (results.verdicts["arm"] == "base") & ~results.verdicts["correct"] & (results.verdicts["seed"] == 11)
    results.verdicts = results.verdicts[~lost]
    build_report(spec, results, tmp_path)
    base = next(row for row in rows(tmp_path / "leaderboard.csv") if row["arm"] == "base")
    assert int(base["n"]) == 960 - int(lost.sum()) and base["expected"] == "960"
    assert f"base: {int(lost.sum())} of 960 responses are missing" in (tmp_path / "report.md").read_text("utf-8")


def test_an_arm_without_results_is_listed_last_and_its_contrast_stays_open(cold_start, tmp_path, without_figures):
    spec, results = cold_start
    for name in ("verdicts", "curves"):
        table = getattr(results, name)
        setattr(results, name, table[table["arm"] != "teacher+grpo"])
    results.stages.loc[(results.stages["arm"] == "teacher+grpo") & (results.stages["kind"] == "rl"), "status"] = (
        "failed"
    )
    build_report(spec, results, tmp_path)
    last = rows(tmp_path / "leaderboard.csv")[-1]
    assert (last["arm"], last["n"], last["accuracy"]) == ("teacher+grpo", "0", "–")
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert content["verdicts"][0]["verdict"] == "not resolved"
    assert "nothing can be said" in content["verdicts"][0]["text"]
    assert any("teacher+grpo seed 11 rl: failed" in text for text in content["caveats"])


def test_few_clusters_are_a_caveat(cold_start, without_figures):
    spec, results = cold_start
    results.verdicts.loc[results.verdicts["benchmark"] == "logicvista", "cluster"] = "the same question"
    caveats = analyse(spec, results, {}).caveats
    assert any(text.startswith("smallworld-bars-choice: its problems fall into only 1 groups") for text in caveats)


def test_final_values_are_of_the_last_steps_even_where_few_were_measured(cold_start, without_figures):
    spec, results = cold_start
    curves = results.curves
    kl = (curves["arm"] == "teacher+grpo") & (curves["metric"] == "kl_exact")
    ends = curves[kl & (curves["step"] == 40)]["value"]
    results.curves = curves[~kl | curves["step"].isin([20, 30, 40])]
    table = {row["arm"]: row["kl"] for row in analyse(spec, results, {}).tables["training"].rows}
    assert table["teacher+grpo"] == f"{ends.mean():.3f} [{ends.min():.3f}, {ends.max():.3f}]"


@pytest.mark.slow
def test_the_base_student_and_evaluations_counted_again_are_caveats(cold_start, without_figures):
    spec, results = cold_start
    caveats = analyse(spec, results, {}).caveats
    assert any(text.startswith("Every statement is about 1 base student (student_a).") for text in caveats)
    assert "The same evaluation serves several seeds and is counted once for each: base." in caveats
    results.stages["stage_id"] = [f"stage-{i}" for i in range(len(results.stages))]
    assert not any("counted once" in text for text in analyse(spec, results, {}).caveats)


@pytest.mark.slow
def test_the_page_says_whether_a_blind_baseline_was_run(cold_start, without_figures):
    spec, results = cold_start
    assert "No blind (no image) baseline was run." in analyse(spec, results, {}).caveats
    results.settings["base", "eval"] = {"blind": True}
    caveats = analyse(spec, results, {}).caveats
    assert not any("baseline was run" in text for text in caveats)
    assert "Evaluated blind, with the images left out: base." in caveats


def test_baselines_are_below_the_arms_by_benchmark(cold_start, without_figures):
    spec, results = cold_start
    family = str(results.verdicts["dataset"].iloc[0])
    *_, chance, majority = analyse(spec, results, {}).tables["families_wide"].rows
    assert (chance["arm"], chance[family]) == ("chance", "25.0")
    assert (majority["arm"], majority[family]) == ("most frequent answer", "12.5")


def test_problems_with_two_samples_have_rows_for_pass_and_majority(cold_start, without_figures):
    spec, results = cold_start
    first = results.verdicts.assign(normalised="1")
    second = first.assign(sample=1, correct=~first["correct"], normalised="2")
    second["state"] = second["correct"].map({True: "right", False: "wrong"})
    results.verdicts = pd.concat([first, second], ignore_index=True)
    rows = {row["arm"]: row for row in analyse(spec, results, {}).tables["families_wide"].rows}
    family = next(name for name in rows["base"] if name != "arm")
    assert rows["base, pass@2"][family].startswith("100.0 [") and rows["base"][family].startswith("50.0 [")
    # Of two different answers the first one wins.
    assert rows["base, maj@2"][family] != rows["base, pass@2"][family]


@pytest.mark.slow
def test_a_partial_run_says_what_was_changed(cold_start, without_figures):
    spec, results = cold_start
    assert not any("The command line changed" in text for text in analyse(spec, results, {}).caveats)
    results.provenance["changes"] = {"settings": ["rl.steps=10"], "seeds_of_the_file": [11, 23]}
    caveats = analyse(spec, results, {}).caveats
    assert any(text.endswith("settings rl.steps=10; seeds of the file 11, 23.") for text in caveats)


def test_a_page_of_an_untrained_checkpoint_does_not_mention_training(cold_start, without_figures):
    spec, results = cold_start
    spec.arms = tuple(arm for arm in spec.arms if arm.name == "base")
    spec.analysis.contrasts = ()
    for name in ("verdicts", "curves", "stages"):
        table = getattr(results, name)
        table = table[(table["arm"] == "base") & (table["seed"] == 11)]
        setattr(results, name, table.assign(student=""))  # as `vold-bench eval` reads its results
    content = analyse(spec, results, {})
    assert content.lead.startswith("This page says how the checkpoint base, evaluated as it is, answers 320 problems")
    assert "train" not in content.lead
    assert not any("training seed" in text or "base student" in text for text in content.caveats)


def test_a_matrix_without_contrasts_draws_no_conclusion(cold_start, tmp_path, without_figures):
    spec, results = cold_start
    spec.analysis.contrasts = ()
    page = build_report(spec, results, tmp_path).read_text(encoding="utf-8")
    assert "registers no contrast" in page
    tested = [row for row in rows(tmp_path / "claims.csv") if row["status"] != "not tested"]
    assert {row["registered"] for row in tested} == {"exploratory"}


def test_the_error_without_any_result_says_what_to_do(cold_start, tmp_path):
    spec, results = cold_start
    results.verdicts = results.verdicts.iloc[:0][["arm", "student", "seed"]]
    with pytest.raises(ConfigurationError, match="run the matrix"):
        build_report(spec, results, tmp_path)


def test_with_one_seed_the_page_says_that_intervals_do_not_cover_other_runs(cold_start, tmp_path, without_figures):
    spec, results = cold_start
    for name in ("verdicts", "curves", "stages"):
        table = getattr(results, name)
        setattr(results, name, table[table["seed"] == 11])
    text = analyse(spec, results, {})
    assert all("one seed" in s.text for s in text.statements)
    assert any(c.startswith("One training seed") for c in text.caveats)


@pytest.mark.slow
def test_a_numeric_axis_gets_a_dose_curve_from_resolved_settings(sft_steps, tmp_path):
    spec, results = sft_steps
    build_report(spec, results, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    alt = content["figures"]["dose_length"]["alt"]
    accuracy = {row["arm"]: row["accuracy"] for row in rows(tmp_path / "leaderboard.csv")}
    assert f"50 gives {accuracy['s50+grpo']} %, 100 gives {accuracy['s100+grpo']} %" in alt
    assert (tmp_path / "figures" / "dose_length.svg").stat().st_size > 10_000
    further = len(load_paper()["claims"])
    assert f"{further} further claims concern arms" in content["tables"]["claims"]["caption"]


def test_figures_of_an_earlier_report_are_removed(cold_start, tmp_path, without_figures):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "dose_length.svg").write_text("old")
    (tmp_path / "figures" / "notes.txt").write_text("somebody's")
    spec, results = cold_start
    build_report(spec, results, tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_hostile_names_stay_text_in_every_format(cold_start, renamed, tmp_path):
    name = "=cmd|'<script>alert(1)</script>$x_1$"
    spec, results = renamed(cold_start, "teacher+grpo", name)
    build_report(spec, results, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "<script>" not in text and r"=cmd\|'&lt;script&gt;" in text
    assert f"'{name}" in {row["arm"] for row in rows(tmp_path / "leaderboard.csv")}


def test_arms_are_described_in_words(cold_start, without_figures):
    spec, results = cold_start
    recipes = {row["arm"]: row["recipe"] for row in analyse(spec, results, load_paper()).tables["arms"].rows}
    assert recipes["base"] == "the base model as it is"
    assert recipes["none+grpo"] == "no cold start, then GRPO without a teacher term"
    assert "traces of other_model, not of the teacher" in recipes["mismatch+sft_only"]
    assert "OPD without a reward" in recipes["teacher+opd"]
    assert "RL teacher other_model" in recipes["rl_teacher_mismatch"]
