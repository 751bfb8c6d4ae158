"""The names of models."""

from pathlib import Path

import pytest

from bench.engines.endpoint import write_endpoint
from bench.evaluation.model import model_name


@pytest.mark.parametrize("name", ["Qwen2.5-VL-3B", "Qwen/Qwen2.5-VL-3B", "../../x\x1b[2J", "<b>模型</b>"])
def test_a_model_behind_a_url_has_its_servers_name_for_it(tmp_path: Path, name: str) -> None:
    assert model_name(write_endpoint(f"http://127.0.0.1:9/v1#{name}", tmp_path)) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hub/models--Qwen--Qwen2.5-VL-3B/snapshots/0123abcd", "Qwen/Qwen2.5-VL-3B"),
        ("hub/models--gpt2/snapshots/0123abcd", "gpt2"),
        ("hub/models--gpt2/snapshots", "snapshots"),
        ("runs/snapshots/last", "last"),
        ("checkpoints/student_a", "student_a"),
        ("results/store/sft-0123/out", "sft-0123"),
    ],
)
def test_a_model_of_the_hub_has_its_name_there_and_any_other_its_directorys_name(path: str, name: str) -> None:
    assert model_name(Path("/x") / path) == name
