import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.benchmarks.base import Dataset
from bench.bridges import vlmeval
from bench.bridges.reasons import Theirs
from bench.cli.main import app
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.parquet_tables import Provenance, write_tables
from bench.evaluation.selection import Selection
from bench.records import Problem, Response
from bench.scoring.scorer import score
from bench.summary import ModelRecord
from tests.conftest import need
from tests.helpers.evaluation_results import ENGINE, first_prompt

RECORDS = [
    {"id": "1", "question": "Which?", "options": ["10", "20", "30"], "answer": "B"},
    {"id": "2", "question": "How many?", "options": [], "answer": "7"},
    {"id": "3", "question": "How much?", "options": [], "answer": r"\frac{1}{2}"},
    {"id": "4", "question": "Which?", "options": ["10", "20", "30"], "answer": "C"},
]
HOSTILE = "__import__('socket').create_connection(('127.0.0.1', 9), 1) or 7"


def test_responses_that_would_be_run_as_code_must_be_trusted() -> None:
    problem = Problem("mathvision", "1", "", (), (), "7", "integer", "1")
    with pytest.raises(ConfigurationError, match="--trust-responses"):
        vlmeval.compare("mathvision", [problem], [], [], "strict")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise vlmeval.PackageNotFoundError(name)

    monkeypatch.setattr(vlmeval, "version", absent)
    with pytest.raises(ConfigurationError, match=r"vold-bench\[vlmeval\]"):
        vlmeval.compare("mmmu_pro", [], [], [], "strict")


def test_the_responses_of_a_result_are_compared_with_the_verdicts_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("mathvision", "1", "How many?", (), (), "7", "integer", "1")
    texts = {0: "so it is 7", 1: "no idea", 2: "out of memory"}
    responses = {
        ("mathvision", "1", sample): Response("mathvision", "1", sample, text, 3, "error" if sample == 2 else "stop")
        for sample, text in texts.items()
    }
    verdicts = {key: score(problem, response) for key, response in responses.items()}
    selection = Selection(Dataset("mathvision", "mathvision", "test", False, (problem,)), (problem,))
    config = EvalConfig(samples=3, temperature=1, engine="builtin")
    provenance = Provenance(config, 0, ModelRecord("student", "aa"), ENGINE, {"mathvision": first_prompt("1", config)})
    write_tables(tmp_path / "eval" / "out", [selection], responses, verdicts, provenance)
    asked = []

    def run_scorer(benchmark: str, rows: list[dict[str, Any]], cot: bool) -> tuple[str, list[Theirs]]:
        asked.extend(row["response"] for row in rows)
        return "none", [Theirs("7", True), Theirs("", None)]

    monkeypatch.setattr(vlmeval, "run_scorer", run_scorer)
    monkeypatch.setattr(vlmeval, "version", lambda name: "0")
    command = ["bridge", "vlmeval", str(tmp_path / "eval"), "--benchmark", "mathvision", "--trust-responses"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    assert asked == ["so it is 7", "no idea"]  # what the engine failed on has no response
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    states = [verdicts["mathvision", "1", sample].state for sample in (0, 1)]
    assert [(row["state"], row["reason"]) for row in rows] == [(states[0], None), (states[1], "judge")]
    wrong = CliRunner().invoke(app, [*command[:4], "mmmu_pro"])
    assert "holds no responses to mmmu_pro, only to mathvision" in str(wrong.exception)


@pytest.mark.slow
def test_vlmevalkit_scores_the_same_rows_and_every_difference_has_a_reason(tmp_path: Path) -> None:
    """One start of its process, which takes half a minute, for everything that is shown of it."""
    need("vlmeval", "vlmeval")
    records, predictions, out = tmp_path / "test.jsonl", tmp_path / "predictions.jsonl", tmp_path / "out.json"
    records.write_text("".join(json.dumps({**row, "image": "none.png"}) + "\n" for row in RECORDS))
    responses = {"1": ["B"], "2": ["7", HOSTILE], "3": ["0.5", "Answer: 1/2"], "4": ["The answer is (C)."]}
    rows = [
        {"id": id, "sample": sample, "response": text}
        for id, texts in responses.items()
        for sample, text in enumerate(texts)
    ]
    predictions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["bridge", "vlmeval", str(predictions), "--benchmark", "mathvision", "--data", str(records)]
    result = CliRunner().invoke(app, [*command, "--trust-responses", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    verdicts = {(row["id"], row["sample"]): (row["vlmevalkit_correct"], row["reason"]) for row in found["rows"]}
    assert verdicts == {
        ("1", 0): (True, None),
        ("2", 0): (True, None),
        ("2", 1): (None, "judge"),
        ("3", 0): (True, None),
        ("3", 1): (None, "judge"),
        ("4", 0): (True, None),
    }
    assert found["network"] in ("none", "python sockets refused")
    assert (found["judged"], found["agree"], found["n"]) == (4, 4, 6)
