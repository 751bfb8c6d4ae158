"""Accuracy on the problems that an audit found clean, compared with pandas on the rows themselves."""

import json
from pathlib import Path

import pytest

from bench.benchmarks.audit import SCHEMA
from bench.errors import ConfigurationError
from bench.report import build_report


def audit(path: Path, benchmark: str, clean: list[str], hit: list[str]) -> str:
    hits = [{"id": id, "why": "the same image", "where": "traces.jsonl:1"} for id in hit]
    path.write_text(json.dumps({"schema": SCHEMA, "benchmark": benchmark, "clean": clean, "hits": hits}))
    return str(path)


def test_clean_problems_are_scored_next_to_all(cold_start, without_figures, tmp_path):
    spec, results = cold_start
    rows = results.verdicts[results.verdicts["benchmark"] == "mathvision"]
    ids = list(rows["id"].unique())
    spec.analysis.clean_of = (audit(tmp_path / "audit.json", "mathvision", ids[10:], ids[:10]),)
    page = build_report(spec, results, tmp_path / "report")
    table = json.loads((page.parent / "report.json").read_text())["tables"]["clean"]["rows"]
    assert {row["arm"] for row in table} == set(rows["arm"])
    for row in table:
        own = rows[rows["arm"] == row["arm"]]
        clean = own[~own["id"].isin(ids[:10])]
        assert row["accuracy"] == f"{100 * clean['correct'].mean():.1f}"
        assert row["all"] == f"{100 * own['correct'].mean():.1f}"
        assert (row["n"], row["items"]) == (str(len(clean)), str(len(ids) - 10))
        assert (row["all_n"], row["all_items"]) == (str(len(own)), str(len(ids)))
    assert "Accuracy on the problems that an audit found clean" in page.read_text()
    assert "Accuracy on the problems that an audit found clean" in (page.parent / "report.md").read_text()


def test_without_an_audit_the_page_does_not_mention_it(cold_start_report):
    assert "Accuracy on the problems that an audit found clean" not in (cold_start_report / "index.html").read_text()
    assert json.loads((cold_start_report / "report.json").read_text())["tables"]["clean"]["rows"] == []


def test_an_audit_of_other_records_is_refused(cold_start, without_figures, tmp_path):
    spec, results = cold_start
    spec.analysis.clean_of = (audit(tmp_path / "audit.json", "mathvision", ["1"], []),)
    with pytest.raises(ConfigurationError, match=r"audit\.json: \d+ evaluated problems are not in this audit"):
        build_report(spec, results, tmp_path / "report")


def test_without_a_clean_problem_there_is_no_score(cold_start, without_figures, tmp_path):
    spec, results = cold_start
    ids = list(results.verdicts.query("benchmark == 'mathvision'")["id"].unique())
    spec.analysis.clean_of = (audit(tmp_path / "audit.json", "mathvision", [], ids),)
    page = build_report(spec, results, tmp_path / "report")
    row = json.loads((page.parent / "report.json").read_text())["tables"]["clean"]["rows"][0]
    assert (row["accuracy"], row["n"]) == ("–", "0")
