"""Strict scoring against what careful readers said of published responses.

``labels/*.jsonl`` hold file, id, SHA-256 of the response and label, never the text. Each set was drawn half at random,
half from responses that are no bare letter or box, and labelled by two readings that did not know each other or the
scorer's verdict. ``first`` may be looked at while the scorer is worked on, ``second`` was scored once (docs/scoring.md)
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bench.benchmarks.registry import read_benchmark
from bench.records import Prediction, Problem, Response
from bench.scoring.predictions import read_predictions
from bench.scoring.scorer import score

LABELS = Path(__file__).parent / "labels"
SPLITS = {"mmmu_pro": "standard10", "mathvision": "test", "mathvista": "testmini", "logicvista": "test"}

pytestmark = pytest.mark.real


@cache
def problems(root: Path, benchmark: str) -> dict[str, Problem]:
    found = read_benchmark(benchmark, root / benchmark, SPLITS[benchmark], require_images=False).problems
    return {problem.id: problem for problem in found}


@cache
def predictions(file: Path) -> dict[str, Prediction]:
    return {prediction.id: prediction for prediction in read_predictions(file)}


def judged(root: Path, name: str) -> Iterator[tuple[str, bool]]:
    """(label, does strict mode say right?) of each labelled response."""
    for line in (LABELS / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        benchmark = row["file"].partition("/")[0]
        text = predictions(root / row["file"])[row["id"]].response
        assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"]
        verdict = score(problems(root, benchmark)[row["id"]], Response(benchmark, row["id"], 0, text, 0, "stop"))
        yield row["label"], verdict.correct


@pytest.mark.parametrize(("name", "count", "least"), [("first.jsonl", 440, 0.99), ("second.jsonl", 240, 0.97)])
def test_strict_scoring_agrees_with_careful_readers(benchmark_data: Path, name: str, count: int, least: float):
    rows = list(judged(benchmark_data, name))
    assert len(rows) == count
    assert {label for label, _ in rows} == {"right", "wrong", "none"}
    agreeing = sum((label == "right") == correct for label, correct in rows)
    false_positives = sum(correct and label != "right" for label, correct in rows)
    assert agreeing / count >= least
    assert false_positives / count <= 0.003
