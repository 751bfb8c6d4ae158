import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli.main import app

RECORDS = {
    "v1_0": {"imagename": "a.png", "question": "Which?", "answer": "B"},
    "v1_1": {"imagename": "b.png", "question": "Which two?", "answer": "A, C"},
    "v1_2": {"imagename": "c.png", "question": "Which one?", "answer": "D"},
}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    root = tmp_path / "logicvista"
    root.mkdir()
    (root / "dataset.json").write_text(json.dumps(RECORDS))
    return root


def scored(file: Path, records: Path, *options: str):
    arguments = ["score", str(file), "--benchmark", "logicvista", "--data", str(records), *options]
    return CliRunner().invoke(app, arguments)


def test_predictions_are_scored_and_missing_ones_are_reported(tmp_path: Path, records: Path):
    rows = [
        {"id": "v1_0", "response": r"so \boxed{B}", "sample": 0},
        {"id": "v1_0", "response": "who knows", "sample": 1},
        {"id": "v1_1", "response": "Answer: A", "sample": 0},
    ]
    file, out = tmp_path / "p.jsonl", tmp_path / "out.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = scored(file, records, "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "1 of 3 problems have no prediction (v1_2" in done.output
    result = json.loads(out.read_text())
    assert {key: result[key] for key in ("benchmark", "mode", "n", "correct")} == {
        "benchmark": "logicvista", "mode": "strict", "n": 3, "correct": 1
    }  # fmt: skip
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert [(row["id"], row["sample"], row["state"]) for row in result["rows"]] == [
        ("v1_0", 0, "right"), ("v1_0", 1, "unparsed"), ("v1_1", 0, "wrong")
    ]  # fmt: skip
    assert set(result["rows"][0]) == {"id", "sample", "state", "extracted", "correct", "method"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "lenient"), "choose strict or official"),
        (("--benchmark", "logicvist"), "logicvista"),
        (("--judge-agreement", "5"), "--judge-agreement: there is no judge"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, records: Path, options: tuple[str, ...], message: str):
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "v1_0", "response": "B"}\n')
    done = scored(file, records, *options)
    assert isinstance(done.exception, ValueError)
    assert message in str(done.exception)


def test_ids_without_a_record_are_named(tmp_path: Path, records: Path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "v1_0", "response": "B"}\n{"id": "nope", "response": "B"}\n')
    done = scored(file, records)
    assert "1 of 2 ids have no record of logicvista" in str(done.exception)
    assert "'nope'" in str(done.exception)


def test_a_result_without_a_directory_is_refused_before_scoring(tmp_path: Path, records: Path):
    done = scored(tmp_path / "none.jsonl", records, "--out", str(tmp_path / "no" / "x.json"))
    assert "mkdir -p" in str(done.exception)
