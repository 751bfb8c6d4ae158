"""The regression check: outcomes, exit codes, errors, outputs, and the rate of false alarms."""

import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench import gate, gate_output
from bench.errors import ConfigurationError, ErrorClass, ExitCode
from bench.gate import IncompleteRun, Margins, RunSummary, check, read_baseline, summarise, write_baseline
from bench.stats.cells import RUN_KEY

ARMS = ("base", "sft", "sft_grpo_opd")
BENCHMARKS = ("logicvista", "mathvision", "mathvista", "mmmu_pro")
ITEMS = 60


def summary(bits, training=None, **changes) -> RunSummary:
    """A summary of verdicts. ``bits[arm]``: an array of booleans, shaped [benchmarks, problems]."""
    problems = {name: [f"{name}-{i:03d}" for i in range(ITEMS)] for name in BENCHMARKS}
    cells = {
        arm: {
            "211": {
                "verdicts": {
                    name: "".join("01"[int(bit)] for bit in row)
                    for name, row in zip(BENCHMARKS, bits[arm], strict=True)
                },
                "training": (training or {}) if arm == "sft_grpo_opd" else {},
            }
        }
        for arm in ARMS
    }
    fields = {
        "spec": "abc",
        "versions": {"torch": "2.13.0"},
        "problems": problems,
        "clusters": problems,
        "cells": cells,
    }
    return RunSummary.model_validate(fields | changes)


def draw(rng, accuracy=0.6):
    return {arm: rng.random((len(BENCHMARKS), ITEMS)) < accuracy for arm in ARMS}


def steps(values):
    return {str(step): float(value) for step, value in enumerate(values, 2)}


TRAINING = {"reward_mean": steps([0.4, 0.42, 0.41, 0.44, 0.45]), "kl": steps([0.9, 0.85, 0.84, 0.8, 0.79])}


def flip(bits, rng, share, to_wrong=False):
    """The verdicts of another run, in which a share of the problems has another verdict."""
    out = {}
    for arm, table in bits.items():
        hit = rng.random(table.shape) < share
        out[arm] = np.where(hit, False if to_wrong else ~table, table)
    return out


def test_an_identical_run_passes():
    bits = draw(np.random.default_rng(0))
    result = check(summary(bits, TRAINING), summary(bits, TRAINING), Margins())
    assert {c.outcome for c in result.checks} == {"pass"}
    assert result.exit_code == ExitCode.OK == 0
    assert len(result.checks) == 5


def test_a_broken_scorer_is_a_regression():
    rng = np.random.default_rng(1)
    bits = draw(rng)
    result = check(summary(flip(bits, rng, 0.4, to_wrong=True), TRAINING), summary(bits, TRAINING), Margins())
    assert result.exit_code == ExitCode.REGRESSION == 1
    assert {c.name for c in result.checks if c.outcome == "regression"} == {f"{arm}: accuracy" for arm in ARMS}


@pytest.mark.parametrize(
    ("metric", "values", "name"),
    [
        ("reward_mean", [0.1, 0.13, 0.1, 0.14, 0.15], "sft_grpo_opd: final reward"),
        ("kl", [1.9, 1.85, 1.85, 1.8, 1.8], "sft_grpo_opd: final teacher KL"),
    ],
)
def test_worse_training_is_a_regression_in_the_direction_that_hurts(metric, values, name):
    bits = draw(np.random.default_rng(2))
    worse = summary(bits, TRAINING | {metric: steps(values)})
    good = summary(bits, TRAINING)
    assert [c.name for c in check(worse, good, Margins()).checks if c.outcome != "pass"] == [name]
    assert check(good, worse, Margins()).exit_code == ExitCode.OK


def test_too_few_problems_are_inconclusive_and_say_how_many_are_needed():
    rng = np.random.default_rng(3)
    bits = draw(rng, accuracy=0.5)
    result = check(summary(flip(bits, rng, 0.4), TRAINING), summary(bits, TRAINING), Margins())
    assert result.exit_code == ExitCode.INCOMPLETE == 3
    remarks = [c.remark for c in result.checks if c.outcome == "inconclusive"]
    assert remarks and all(r.startswith("needs n = ") for r in remarks)
    assert all(int(r.split()[3]) > ITEMS * len(BENCHMARKS) for r in remarks)


def test_few_clusters_need_more_problems_than_there_are():
    bits = draw(np.random.default_rng(3))
    clusters = {name: ["one", "two"] * (ITEMS // 2) for name in BENCHMARKS}
    few = summary(bits, TRAINING, clusters=clusters)
    remark = check(few, few, Margins()).checks[0].remark
    assert int(remark.split()[3]) > ITEMS * len(BENCHMARKS)


def test_a_regression_outranks_an_inconclusive_check():
    rng = np.random.default_rng(4)
    bits = draw(rng)
    mixed = flip(bits, rng, 0.4) | {"base": np.zeros_like(bits["base"])}
    assert check(summary(mixed, TRAINING), summary(bits, TRAINING), Margins()).exit_code == ExitCode.REGRESSION


def test_false_alarms_are_rarer_than_one_in_a_hundred_runs():
    rng = np.random.default_rng(5)
    alarms, runs = 0, 150
    for _ in range(runs):
        # Worse than any real rerun: a quarter of the verdicts differ, and training has independent noise.
        bits = draw(rng)
        noisy = [
            {"reward_mean": steps(0.4 + rng.normal(0, 0.05, 5)), "kl": steps(0.8 + rng.normal(0, 0.08, 5))}
            for _ in range(2)
        ]
        result = check(summary(flip(bits, rng, 0.12), noisy[0]), summary(flip(bits, rng, 0.12), noisy[1]), Margins())
        alarms += result.exit_code == ExitCode.REGRESSION
    assert alarms / runs <= 0.01


def test_a_true_loss_of_fifteen_points_is_nearly_always_detected():
    rng = np.random.default_rng(6)
    detected = 0
    for _ in range(40):
        bits = draw(rng)
        run = flip(flip(bits, rng, 0.05), rng, 0.25, to_wrong=True)
        detected += check(summary(run, TRAINING), summary(bits, TRAINING), Margins()).exit_code == ExitCode.REGRESSION
    assert detected >= 38


@pytest.mark.parametrize("change", [{"spec": "other"}, {"problems": {name: ["x"] * ITEMS for name in BENCHMARKS}}])
def test_a_baseline_of_another_specification_says_how_to_record_a_new_one(change):
    bits = draw(np.random.default_rng(7))
    with pytest.raises(ConfigurationError, match="check --update") as caught:
        check(summary(bits, TRAINING), summary(bits, TRAINING, **change), Margins())
    assert caught.value.error_class.exit_code == 4


def test_a_missing_response_is_an_error_and_not_a_regression():
    bits = draw(np.random.default_rng(8))
    whole = summary(bits, TRAINING)
    data = whole.model_dump(by_alias=True)
    broken = data["cells"]["sft"][211]["verdicts"]
    broken["mathvista"] = "-" + broken["mathvista"][1:]
    with pytest.raises(gate.IncompleteRun, match="1 responses are missing") as caught:
        check(RunSummary.model_validate(data), whole, Margins())
    assert caught.value.error_class.exit_code >= 4


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"schema": "vold-bench/check@9"}'])
def test_a_missing_or_corrupt_baseline_names_the_file_and_how_to_fix_it(tmp_path, content):
    path = tmp_path / "check.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"check\.json.*check --update"):
        read_baseline(path)


def test_an_incomplete_run_is_inconclusive_unless_its_stages_say_why():
    assert IncompleteRun("x").exit_code == ExitCode.INCOMPLETE == 3
    assert IncompleteRun("x", ErrorClass.INFRASTRUCTURE).exit_code == ExitCode.INFRASTRUCTURE


def test_a_recorded_baseline_is_read_back_unchanged(tmp_path):
    whole = summary(draw(np.random.default_rng(9)), TRAINING)
    write_baseline(whole, tmp_path / "deep" / "check.json")
    assert read_baseline(tmp_path / "deep" / "check.json") == whole


def test_all_outputs_report_the_same_outcome():
    rng = np.random.default_rng(10)
    bits = draw(rng)
    run = flip(bits, rng, 0.4) | {"base": np.zeros_like(bits["base"])}
    result = check(summary(run, TRAINING, versions={"torch": "3.0"}), summary(bits, TRAINING), Margins())
    suite = ElementTree.fromstring(gate_output.as_junit(result))
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["base: accuracy"]
    assert suite.get("failures") == "1"
    content = json.loads(gate_output.as_json(result))
    assert content["exit_code"] == 1
    text = gate_output.as_text(result)
    assert text.splitlines()[1].startswith("regression") and text.endswith("check: regression")
    assert "torch: 3.0 here, 2.13.0 in the baseline" in text
    lines = gate_output.annotations(result)
    assert [line for line in lines if line.startswith("::error ")] == [line for line in lines if "base: acc" in line]


class Results:
    """The parts of ``MatrixResults`` that a summary reads."""

    def __init__(self) -> None:
        rows = [("sft", "a", 211, b, f"{b}-{i}", f"c{i // 2}", 0, i % 2 == 0) for b in BENCHMARKS for i in range(4)]
        self.verdicts = pd.DataFrame(rows, columns=["arm", *RUN_KEY, "benchmark", "id", "cluster", "sample", "correct"])
        curve = [
            ("sft", "a", 211, "rl", s, m, s / 10) for s in range(1, 8) for m in ("reward_mean", "kl_sampled", "loss")
        ]
        self.curves = pd.DataFrame(curve, columns=["arm", *RUN_KEY, "stage", "step", "metric", "value"])
        self.settings = {("sft", "sft"): {"steps": 40}}
        inputs = {"model": {"hash-1": "a"}, "data.x": {"h": "b"}}
        self.provenance = {"versions": {"torch": "2.13.0"}, "processor": "a chip", "inputs": inputs}


def test_a_summary_has_the_verdicts_and_the_last_steps():
    result = RunSummary.model_validate(summarise(Results()))  # type: ignore[arg-type]
    cell = result.cells["sft"][211]
    assert cell.verdicts["mathvision"] == "1010"
    assert result.clusters["mathvision"] == ("c0", "c0", "c1", "c1")
    assert result.versions == {"cpu": "a chip", "torch": "2.13.0"}
    assert cell.training == {m: {s: s / 10 for s in range(3, 8)} for m in ("reward_mean", "kl")}


def test_results_of_two_students_are_refused():
    results = Results()
    results.verdicts.loc[results.verdicts.index[::2], "student"] = "b"
    with pytest.raises(ConfigurationError, match=r"takes one student; name a single one under models\.student"):
        summarise(results)  # type: ignore[arg-type]


def test_the_specification_follows_settings_and_models_but_not_the_generated_files():
    first, same, other = Results(), Results(), Results()
    same.provenance["inputs"]["data.x"] = {"another hash": "b"}
    other.settings["sft", "sft"] = {"steps": 41}
    digests = [summarise(results)["spec"] for results in (first, same, other)]  # type: ignore[arg-type]
    assert digests[0] == digests[1] != digests[2]
