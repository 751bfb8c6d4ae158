"""The rule that gives a claim its status, and the paper's tables as data."""

from pathlib import Path

import pytest

from bench.matrix.spec import load_spec
from bench.report.claims import claim_status, load_paper, paper_figures
from bench.stats.decisions import ContrastVerdict

ROOT = Path(__file__).parents[3]
WIDE, NARROW = (-0.05, 0.05), (-0.01, 0.01)


@pytest.mark.parametrize(
    ("expect", "verdict", "inner", "status"),
    [
        ("better", "better", WIDE, "reproduced"),
        ("better", "worse", WIDE, "contradicted"),
        ("better", "not resolved", NARROW, "not resolved"),
        ("worse", "worse", WIDE, "reproduced"),
        ("worse", "better", WIDE, "contradicted"),
        ("not_better", "better", WIDE, "contradicted"),
        ("not_better", "worse", WIDE, "reproduced"),
        ("not_better", "not resolved", WIDE, "not resolved"),
        ("not_better", "not resolved", NARROW, "reproduced"),
        ("not_better", "not resolved", (-0.09, 0.01), "reproduced"),
        ("not_worse", "worse", WIDE, "contradicted"),
        ("not_worse", "not resolved", (-0.01, 0.09), "reproduced"),
        ("not_worse", "not resolved", (-0.09, 0.01), "not resolved"),
    ],
)
def test_the_status_of_a_claim_follows_from_verdict_and_margin(expect, verdict: ContrastVerdict, inner, status):
    assert claim_status(expect, verdict, inner, margin=0.02) == status


def test_the_paper_file_names_its_source_and_has_the_headline_numbers():
    paper = load_paper()
    assert paper["paper"]["arxiv"] == "2510.23497"
    assert paper["tables"]["main"]["rows"]["vold"]["mathvision"] == 28.0
    assert paper["tables"]["cold_start"]["rows"]["teacher+sft_only"]["logicvista"] == 28.9


def test_each_claim_names_existing_rows_and_expects_their_direction():
    paper = load_paper()
    for claim in paper["claims"]:
        if "table" not in claim:
            assert claim["remark"]
            continue
        rows = paper["tables"][claim["table"]]["rows"]
        test, against = rows[claim["test"]], rows[claim["against"]]
        names = ("perception",) if "measure" in claim else ("mathvision", "logicvista")
        gains = [test[name] - against[name] for name in names]
        assert {"better": min(gains) > 0, "worse": max(gains) < 0, "not_better": max(gains) < 0.5}[claim["expect"]]


def test_the_papers_figures_are_quoted_from_its_tables():
    paper = load_paper()
    claim = next(c for c in paper["claims"] if c["id"] == "mismatch_makes_opd_useless")
    assert paper_figures(claim, paper).startswith("MathVision 24.5 against 24.4; LogicVista 41.2 against 41.1")


def test_a_paper_file_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "paper.json"
    path.write_text('{"schema": "x"}')
    with pytest.raises(ValueError, match=r"paper@1"):
        load_paper(path)


def test_the_cold_start_matrix_has_every_arm_of_the_claims():
    spec = load_spec(ROOT / "ablations" / "cold_start.yaml")
    claims = load_paper()["claims"]
    assert {arm for claim in claims for arm in (claim["test"], claim["against"])} <= set(spec.names)
    registered = {(c.test.arm, c.against.arm): c.expect for c in spec.analysis.contrasts}
    shared = [c for c in claims if (c["test"], c["against"]) in registered]
    assert len(shared) >= 4
    assert all(registered[c["test"], c["against"]] == c["expect"] for c in shared)
