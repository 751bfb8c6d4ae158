"""What a model is called, wherever it lies."""

from pathlib import Path

import pytest

from bench.engines.endpoint import write_endpoint
from bench.evaluation.model import model_name


@pytest.mark.parametrize("name", ["Qwen2.5-VL-3B", "Qwen/Qwen2.5-VL-3B", "../../x\x1b[2J", "<b>模型</b>"])
def test_a_model_behind_a_url_is_called_as_its_server_calls_it(tmp_path: Path, name: str) -> None:
    assert model_name(write_endpoint(f"http://127.0.0.1:9/v1#{name}", tmp_path)) == name


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("hub/models--Qwen--Qwen2.5-VL-3B/snapshots/0123abcd", "Qwen/Qwen2.5-VL-3B"),
        ("hub/models--gpt2/snapshots/0123abcd", "gpt2"),
        ("hub/models--gpt2/snapshots", "snapshots"),
        ("runs/snapshots/last", "last"),
        ("checkpoints/student_a", "student_a"),
    ],
)
def test_a_model_of_the_hub_is_called_as_there_and_any_other_as_its_directory(place: str, name: str) -> None:
    assert model_name(Path("/x") / place) == name
