"""The correction that a matrix file names reaches verdicts, tables, sentences and methods."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bench.errors import ConfigurationError
from bench.matrix.spec import load_spec
from bench.report.analysis import analyse
from bench.report.claims import load_paper
from bench.stats.corrections import CORRECTIONS, Correction

ABLATIONS = Path(__file__).parents[3] / "ablations"


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    return np.asarray(multipletests(list(p_values), method="fdr_bh")[1]).tolist()


def matrix_file(path: Path, correction: str) -> Path:
    text = (ABLATIONS / "cold_start.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("correction: holm", f"correction: {correction}"), encoding="utf-8")
    return path


def test_a_correction_takes_one_row_and_one_function(cold_start, without_figures, tmp_path, monkeypatch):
    row = Correction(
        "bh", "BH p", benjamini_hochberg, lambda count: 1 / count, "their false discovery rate is controlled"
    )
    monkeypatch.setitem(CORRECTIONS, row.name, row)
    spec, results = cold_start
    spec.analysis.correction = load_spec(matrix_file(tmp_path / "matrix.yaml", "bh")).analysis.correction
    content = analyse(spec, results, load_paper())
    table = content.tables["contrasts_pooled"]
    assert ("p_bh", "BH p") in {(column.key, column.label) for column in table.columns}
    p = {row["id"]: row["p"] for row in table.rows}
    assert float(p["H5"]) > 0.05
    # H5 has the largest of the p-values, which Benjamini and Hochberg leave as it is.
    assert table.rows[-1]["p_bh"] == p["H5"]
    assert all(re.search(r"BH p( =|) ?[<\d]", statement.text) for statement in content.statements)
    assert any("their false discovery rate is controlled" in text for text in content.methods)
    assert not any("Holm" in text for text in (*content.methods, *(s.text for s in content.statements)))


def test_without_a_correction_the_page_claims_none(cold_start, without_figures):
    spec, results = cold_start
    spec.analysis.correction = "none"
    content = analyse(spec, results, load_paper())
    assert all(row["p_none"] == row["p"] for row in content.tables["contrasts_pooled"].rows)
    assert all("uncorrected p" in statement.text for statement in content.statements)
    assert "Figures and tables by benchmark are exploratory. No p-value on this page is corrected." in content.caveats


def test_an_unknown_correction_is_refused_with_the_known_ones(tmp_path):
    path = matrix_file(tmp_path / "matrix.yaml", "bonferroni")
    with pytest.raises(ConfigurationError, match=r":\d+:\d+: analysis.correction: expected one of holm, none, found"):
        load_spec(path)
