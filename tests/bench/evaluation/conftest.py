"""Records and a checkpoint that cost nothing to ask."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Ten MathVision records without pictures."""
    root = tmp_path / "texts"
    root.mkdir()
    rows = [
        {"id": str(number), "question": f"What is {number} modulo 7?", "options": [], "answer": str(number % 7),
         "image": "absent.png", "level": 1, "subject": "counting"}
        for number in range(10)
    ]  # fmt: skip
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A directory that is taken for a checkpoint by all who do not load it."""
    path = tmp_path / "no_model"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")
    return path
