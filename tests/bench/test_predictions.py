import json
from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.official import Prediction
from bench.predictions import read_predictions


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_published_form_is_read(tmp_path: Path):
    row = {"id": 7, "response": "[1, 2]", "extraction": None, "sample": 1}
    jsonl = written(tmp_path / "a.jsonl", json.dumps(row) + "\n\n" + json.dumps({"id": "8", "response": None}) + "\n")
    assert read_predictions(jsonl) == [Prediction("7", 1, "[1, 2]"), Prediction("8", 0, "")]
    answers = written(tmp_path / "b.json", json.dumps({"v1_0": {"answer": "A and B", "reasoning": "none"}}))
    assert read_predictions(answers) == [Prediction("v1_0", 0, "A and B")]
    bare = written(tmp_path / "c.json", json.dumps({"x_1": "B", "x_2": 4}))
    assert read_predictions(bare) == [Prediction("x_1", 0, "B"), Prediction("x_2", 0, "4")]
    csv = written(tmp_path / "d.csv", ",id,M answer extracted,M answer raw\n0,v1_1,\"['b', 'd']\",\"B, D.\"\n")
    assert read_predictions(csv) == [Prediction("v1_1", 0, "B, D.", "b, d")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": "1", "response": "A"}\n{"id": "2", "resp', "a.jsonl:2: not JSON"),
        ("a.jsonl", '{"response": "A"}\n', "a.jsonl:1: a prediction must be an object with an 'id'"),
        ("a.jsonl", '{"id": "1"}\n', "needs a 'response', found id"),
        ("a.jsonl", '{"id": "1", "response": "A"}\n' * 2, "stands there twice with sample 0"),
        ("a.jsonl", '{"id": "1", "response": "A", "sample": -1}\n', "'sample' must be a whole number"),
        ("a.jsonl", "", "holds no predictions"),
        ("a.json", '{"id": "1"}\n{"id": "2"}', "JSON lines need the ending .jsonl"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.jsonl", '{"id": 1, "response": ' + "1" * 5_000 + "}", "a.jsonl:1: not JSON"),
        ("a.json", '{"x": "A", "x": "B"}', "'x' stands twice"),
        ("a.jsonl", '{"id": "1", "response": {}}', "a.jsonl:1: 'response' must be text"),
        ("a.jsonl", '{"id": "1", "response": NaN}', "a.jsonl:1: 'response' must be text"),
        ("a.jsonl", '{"id": "1", "response": "\\ud800"}', "a.jsonl:1: the response holds half a surrogate"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str):
    with pytest.raises(ConfigurationError, match=r"a\.json") as caught:
        read_predictions(written(tmp_path / name, text))
    assert message in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "1", "response": "\xff"}\n')
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_predictions(tmp_path / "a.jsonl")
