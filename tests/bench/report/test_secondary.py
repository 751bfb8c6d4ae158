"""Perception and sampled accuracy stand next to the primary accuracy and change nothing about it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.report import analysis
from bench.report.claims import load_paper
from bench.report.model import ReportData
from bench.report.numbers import percent
from bench.report.render import report_files

READS = {"base": 0.95, "teacher+grpo": 0.9, "teacher+grpo_opd": 0.55}


def perception(results: Any, images: int = 80) -> pd.DataFrame:
    """Every arm reads some images; the fewest after GRPO + OPD."""
    tables = []
    for (arm, seed), rows in results.verdicts[results.verdicts["benchmark"] == "mathvision"].groupby(["arm", "seed"]):
        rng = np.random.default_rng([seed, *arm.encode()])
        correct = rng.random(images) < READS.get(arm, 0.8)
        ids = [f"image-{i}" for i in range(images)]
        new = rows.iloc[:images].assign(
            benchmark="transcription", dataset="smallworld-read", id=ids, cluster=ids, correct=correct,
            state=np.where(correct, "right", "wrong"),
        )  # fmt: skip
        tables.append(new)
    return pd.concat(tables, ignore_index=True)


def sampled(results: Any, samples: int = 2) -> pd.DataFrame:
    """Each sample of a problem is right with a probability of its own."""
    tables = []
    for sample in range(samples):
        rng = np.random.default_rng(sample)
        correct = results.verdicts["correct"].to_numpy(bool) & (rng.random(len(results.verdicts)) < 0.7)
        state = np.where(correct, "right", "wrong")
        tables.append(results.verdicts.assign(sample=sample, correct=correct, state=state))
    return pd.concat(tables, ignore_index=True)


def table(report: ReportData, name: str) -> pd.DataFrame:
    return pd.DataFrame(report.tables[name].rows)


@pytest.fixture(scope="module")
def world(new_cold_start: Any) -> Any:
    """The results with perception and samples."""
    _, results = new_cold_start()
    results.sampled = sampled(results)
    results.verdicts = pd.concat([results.verdicts, perception(results)], ignore_index=True)
    return results


def analysed(spec: Any, results: Any) -> ReportData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "_figures", lambda *_: [])  # they take most of the time of a report
        return analysis.analyse(spec, results, load_paper())


@pytest.fixture(scope="module")
def plain(new_cold_start: Any) -> ReportData:
    return analysed(*new_cold_start())


@pytest.fixture(scope="module")
def full(new_cold_start: Any, world: Any) -> ReportData:
    spec, _ = new_cold_start()
    spec.analysis.sampled = SimpleNamespace(samples=2, temperature=1.0)
    return analysed(spec, world)


def test_the_primary_numbers_are_those_without_secondary_measures(plain: ReportData, full: ReportData) -> None:
    board, alone = table(full, "leaderboard"), table(plain, "leaderboard")
    assert set(board) - set(alone) == {"perception", "sampled", "passed"}
    pd.testing.assert_frame_equal(board[alone.columns], alone)
    for name in ("families", "families_wide", "contrasts_pooled", "training"):
        pd.testing.assert_frame_equal(table(full, name), table(plain, name))
    assert full.statements == plain.statements
    assert plain.tables["secondary"].rows == ()


def test_the_leaderboard_has_value_and_interval_next_to_the_accuracy(world: Any, full: ReportData) -> None:
    keys = [column.key for column in full.tables["leaderboard"].columns]
    assert keys[keys.index("n") + 1 :][:3] == ["perception", "sampled", "passed"]
    board, every = table(full, "leaderboard").set_index("arm"), table(full, "secondary")
    read = world.verdicts[world.verdicts["benchmark"] == "transcription"].groupby("arm")["correct"].mean()
    for arm, cell in board["perception"].items():
        row = every[(every["arm"] == arm) & (every["measure"] == "perception")].iloc[0]
        assert cell == f"{percent(read[arm])} [{row['low']}, {row['high']}]"
        assert (row["family"], row["n"], row["expected"], row["runs"]) == ("smallworld-read", "240", "240", "3")
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])


def test_samples_have_their_mean_and_the_share_of_problems_solved_by_any(world: Any, full: ReportData) -> None:
    keys = ["arm", "benchmark", "seed", "id"]
    problems = world.sampled.groupby(keys)["correct"].agg(["mean", "max"])
    means = problems.groupby(["arm", "benchmark"]).mean().groupby("arm").mean()
    every = table(full, "secondary")
    pooled = every[every["family"] == "macro mean"].set_index(["measure", "arm"])["accuracy"]
    for arm, row in means.iterrows():
        assert pooled["accuracy, 2 samples at T=1", arm] == percent(row["mean"])
        assert pooled["pass@2 at T=1", arm] == percent(row["max"])
    counts = every[every["family"] == "macro mean"].groupby("measure")["n"].unique()
    assert counts["accuracy, 2 samples at T=1"].tolist() == ["1920"]
    assert counts["pass@2 at T=1"].tolist() == ["960"]


def test_contrasts_have_an_uncorrected_row_for_each_measure(world: Any, full: ReportData) -> None:
    contrasts = table(full, "contrasts")
    rows = contrasts[contrasts["id"] == "H1"].set_index("scope")
    for scope in ("perception", "accuracy, 2 samples at T=1", "pass@2 at T=1"):
        assert (rows.loc[scope, "verdict"], rows.loc[scope, "p_holm"]) == ("not corrected", "–")
    read = world.verdicts[world.verdicts["benchmark"] == "transcription"].groupby("arm")["correct"].mean()
    difference = 100 * (read["teacher+grpo_opd"] - read["teacher+grpo"])
    assert float(rows.loc["perception", "difference"]) == pytest.approx(difference, abs=0.051)


def test_the_papers_claim_about_perception_is_tested_on_perception_alone(plain: ReportData, full: ReportData) -> None:
    def claim(report: ReportData) -> pd.Series:
        claims = table(report, "claims").set_index("claim")
        return claims.loc[next(text for text in claims.index if text.startswith("Perception falls"))]

    assert claim(plain)["status"] == "not tested"
    row = claim(full)
    assert (row["status"], row["registered"]) == ("reproduced", "exploratory")
    assert "MMStar perception 54.4 against 58.4" in row["paper"]
    assert row["ours"].startswith("-")


def test_every_format_has_the_measures(full: ReportData) -> None:
    files = {name: content.decode() for name, content in report_files(full, load_paper()).items()}
    assert files["secondary.csv"].count("smallworld-read") == 13
    assert '"secondary"' in files["report.json"]
    for page in ("index.html", "report.md"):
        assert "accuracy, 2 samples at T=1" in files[page] and "smallworld-read" in files[page]
        assert "They are not part of the pooled number" in files[page]
