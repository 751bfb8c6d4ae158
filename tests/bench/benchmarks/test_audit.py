import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.benchmarks.audit import DISTANCE, audit, difference_hash, ngrams
from bench.benchmarks.registry import read_benchmark
from bench.cli.main import app
from bench.errors import ConfigurationError

LONG = "A farmer has seventeen sheep and nine goats; all but five of the sheep run away into the hills"


def drawing(seed: int, size: int = 160) -> Image.Image:
    """Boxes of its own for each seed, smooth enough to look the same when scaled."""
    chance = np.random.default_rng(seed)
    return Image.fromarray(chance.integers(0, 256, (8, 9, 3), dtype=np.uint8)).resize((size, size))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Four LogicVista records: a long question, its image seen, its image seen in another size, and a clean one."""
    root = tmp_path / "logicvista"
    (root / "images").mkdir(parents=True)
    questions = [LONG + " at night?", "Which one?", "Which one?", "Which of these?"]
    rows = {f"v1_{k}": {"imagename": f"{k}.png", "question": q, "answer": "A"} for k, q in enumerate(questions)}
    (root / "dataset.json").write_text(json.dumps(rows))
    for k in range(4):
        drawing(k).save(root / f"images/{k}.png")
    return root


def training(tmp_path: Path, records: Path) -> Path:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "same.png").write_bytes((records / "images/1.png").read_bytes())
    drawing(2).resize((90, 90)).save(folder / "alike.jpg", quality=70)
    drawing(9).save(folder / "other.png")
    rows: list[dict[str, Any]] = [
        {"id": "a", "text": "Count.", "completion": f"The problem says: {LONG.upper()}!"},
        {"id": "b", "text": "Which one?", "completion": "B", "images": ["same.png"]},
        {"id": "c", "text": "Which one?", "completion": "B", "images": ["alike.jpg"]},
        {"id": "d", "text": "Which of these?", "completion": "B", "images": ["other.png"]},
    ]
    file = folder / "traces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_an_audit_names_what_is_hit_why_and_where(tmp_path: Path, records: Path) -> None:
    file = training(tmp_path, records)
    result = audit(read_benchmark("logicvista", records), [f"file:{file}"])
    hits = {hit["id"]: (hit["why"], hit["where"]) for hit in result["hits"]}
    assert set(hits) == {"v1_0", "v1_1", "v1_2"}
    assert hits["v1_0"][0].startswith("13 words (a farmer has seventeen")
    assert hits["v1_0"][1] == f"{file}:1"
    assert hits["v1_1"] == ("the same image", f"{file}:2")
    assert hits["v1_2"][0].startswith("a similar image (")
    assert (result["clean"], result["n"], result["too_short"]) == (["v1_3"], 4, 3)


def test_the_difference_hash_is_that_of_its_definition() -> None:
    grey = np.arange(72, dtype=np.uint8).reshape(8, 9) * 3
    rising, falling = Image.fromarray(grey), Image.fromarray(grey[:, ::-1].copy())
    assert (difference_hash(rising), difference_hash(falling)) == (2**64 - 1, 0)
    first = np.zeros((8, 9), dtype=np.uint8)
    first[0, 1] = 200
    assert difference_hash(Image.fromarray(first)) == 1 << 63


@pytest.mark.parametrize("seed", range(6))
def test_an_image_saved_again_or_scaled_is_similar_and_another_is_not(seed: int) -> None:
    original, saved = drawing(seed), io.BytesIO()
    original.save(saved, "JPEG", quality=60)
    for again in (Image.open(saved), original.resize((80, 80)), original.resize((311, 311))):
        assert (difference_hash(original) ^ difference_hash(again)).bit_count() <= DISTANCE
    assert (difference_hash(original) ^ difference_hash(drawing(seed + 50))).bit_count() > 4 * DISTANCE


def test_a_blank_image_is_like_nothing(tmp_path: Path, records: Path) -> None:
    Image.new("RGB", (50, 50), "white").save(records / "images/3.png")
    Image.new("RGB", (70, 70), "white").save(tmp_path / "blank.png")
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"id": "a", "text": "?", "answer": "B", "images": ["blank.png"]}))
    assert audit(read_benchmark("logicvista", records), [str(file)])["hits"] == []


def test_thirteen_words_in_a_row_are_needed() -> None:
    words = LONG.split()
    assert len(list(ngrams(" ".join(words[:12])))) == 0
    assert list(ngrams(f"{' '.join(words[:13])}?")) == [tuple(word.strip(";").lower() for word in words[:13])]
    assert list(ngrams(f"<image 1> {' '.join(words[:12])}")) == []


def test_the_clean_problems_are_scored_next_to_all_problems(tmp_path: Path, records: Path) -> None:
    found, out, predictions = tmp_path / "audit.json", tmp_path / "scores.json", tmp_path / "p.jsonl"
    common = ["--benchmark", "logicvista", "--data", str(records)]
    run = CliRunner().invoke
    done = run(app, ["data", "audit", *common, "--against", str(training(tmp_path, records)), "--out", str(found)])
    assert done.exit_code == 0, done.output
    assert "3 of 4 problems are in the training data, 1 are clean" in done.output
    predictions.write_text(
        "".join(json.dumps({"id": f"v1_{k}", "response": f"Answer: {'AB'[k == 3]}"}) + "\n" for k in range(4))
    )
    done = run(app, ["score", str(predictions), *common, "--clean-of", str(found), "--out", str(out)])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert (result["n"], result["correct"]) == (4, 3)
    assert result["clean"] == {"audit": str(found), "n": 1, "correct": 0, "accuracy": 0.0}


def test_an_audit_of_other_records_is_refused(tmp_path: Path, records: Path) -> None:
    from bench.benchmarks.audit import clean_ids

    found = tmp_path / "audit.json"
    dataset = read_benchmark("logicvista", records)
    found.write_text(json.dumps(audit(dataset, [str(training(tmp_path, records))])))
    with pytest.raises(ConfigurationError, match="is an audit of other records"):
        clean_ids(found, "logicvista", dataset.problems[:2])
    with pytest.raises(ConfigurationError, match="not an audit of mathvision"):
        clean_ids(found, "mathvision", dataset.problems)
