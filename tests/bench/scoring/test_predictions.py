import csv
import json
from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.records import Prediction
from bench.scoring.predictions import find_records, read_predictions


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


def test_a_response_longer_than_csv_allows_by_default_is_read(tmp_path: Path):
    csv.field_size_limit(131_072)
    file = written(tmp_path / "a.csv", f"id,M answer raw,M answer extracted\n1,{'so ' * 100_000}B,['b']\n")
    (prediction,) = read_predictions(file)
    assert len(prediction.response) == 300_001 and prediction.extraction == "b"


OPTIONS = {"standard10": "['one', 'two', 'three']", "standard4": "['three', 'one']"}


@pytest.fixture
def mmmu_pro(tmp_path: Path) -> Path:
    """Two records in the settings of ten and of four options: the same ids, other options."""
    for split, options in OPTIONS.items():
        rows = [{"id": f"t_{n}", "question": "?", "options": options, "answer": "B", "subject": "Art"} for n in "12"]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        written(tmp_path / f"records_{split}_1730.jsonl", text)
    return tmp_path


def test_a_split_that_the_ids_do_not_tell_must_be_named(mmmu_pro: Path):
    given = [Prediction("t_1", 0, "Answer: one")]
    with pytest.raises(ConfigurationError, match=r"splits standard10, standard4 .*--split standard10"):
        find_records(given, Path("p.jsonl"), "mmmu_pro", mmmu_pro)
    for split, options in (("standard10", 3), ("standard4", 2)):
        found = find_records(given, Path("p.jsonl"), "mmmu_pro", mmmu_pro, split)
        assert (found.split, len(found.problems[0].options)) == (split, options)
    (mmmu_pro / "records_standard10_1730.jsonl").unlink()
    assert find_records(given, Path("p.jsonl"), "mmmu_pro", mmmu_pro).split == "standard4"
    with pytest.raises(ConfigurationError, match="no records of mmmu_pro"):
        find_records(given, Path("p.jsonl"), "mmmu_pro", mmmu_pro, "standard10")


def test_a_damaged_split_is_not_taken_for_an_absent_one(mmmu_pro: Path):
    file = mmmu_pro / "records_standard10_1730.jsonl"
    file.write_text(file.read_text()[:-9])
    with pytest.raises(ConfigurationError, match=r"records_standard10_1730\.jsonl:2: not JSON"):
        find_records([Prediction("t_1", 0, "Answer: one")], Path("p.jsonl"), "mmmu_pro", mmmu_pro)


def test_a_split_within_another_is_taken_where_the_ids_are_just_its_own(tmp_path: Path):
    rows = [{"id": n, "question": "?", "options": [], "answer": "4", "subject": "counting", "image": "a.png"}
            for n in "123"]  # fmt: skip
    for name, part in (("test", rows), ("testmini", rows[:2])):
        written(tmp_path / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in part))

    def split(ids: str) -> str:
        return find_records([Prediction(id, 0, "4") for id in ids], Path("p"), "mathvision", tmp_path).split

    assert (split("12"), split("1"), split("123")) == ("testmini", "test", "test")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": "1", "response": "A"}\n{"id": "2", "resp', "a.jsonl:2: not JSON"),
        ("a.jsonl", '{"response": "A"}\n', "a.jsonl:1: a prediction must be an object with an 'id'"),
        ("a.jsonl", '{"id": "1"}\n', "needs a 'response', found id"),
        ("a.jsonl", '{"id": "1", "response": "A"}\n' * 2, "occurs twice with sample 0"),
        ("a.jsonl", '{"id": "1", "response": "A", "sample": -1}\n', "'sample' must be a whole number"),
        ("a.jsonl", "", "has no predictions"),
        ("a.json", '{"id": "1"}\n{"id": "2"}', "a file of JSON lines must end in .jsonl"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.jsonl", '{"id": 1, "response": ' + "1" * 5_000 + "}", "a.jsonl:1: not JSON"),
        ("a.json", '{"x": "A", "x": "B"}', "'x' occurs twice"),
        ("a.jsonl", '{"id": "1", "response": {}}', "a.jsonl:1: 'response' must be text"),
        ("a.jsonl", '{"id": "1", "response": NaN}', "a.jsonl:1: 'response' must be text"),
        ("a.jsonl", '{"id": "1", "response": "\\ud800"}', "a.jsonl:1: the response contains half a surrogate"),
        (
            "a.jsonl",
            '{"id": "1", "response": "A", "extraction": "\\ud800"}',
            "the extraction contains half a surrogate",
        ),
        ("a.json", '{"1": {"response": "A", "extraction": ["\\udfff"]}}', "'1': the extraction contains half"),
        ("a.json.csv", "id,M answer raw,M answer extracted\nv1_1,B\n", "a.json.csv:2: fewer fields than the header"),
        ("a.json.csv", 'id,M answer raw\n1,"B\nor C"\n2,B, so C\n', "a.json.csv:4: more fields than the header"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str):
    with pytest.raises(ConfigurationError, match=r"a\.json") as caught:
        read_predictions(written(tmp_path / name, text))
    assert message in str(caught.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "1", "response": "\xff"}\n')
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_predictions(tmp_path / "a.jsonl")
