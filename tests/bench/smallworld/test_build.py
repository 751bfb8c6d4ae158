"""Building a bundled checkpoint: the same bytes every time, and no checkpoint below its gate."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bench.smallworld import build as building
from bench.smallworld.pretrain import Recipe, TeacherPretraining

pytestmark = pytest.mark.slow


class InThisProcess(ThreadPoolExecutor):
    """A pool whose workers run in this process, so that patches of a test reach them."""

    def __init__(self, jobs: int, mp_context: Any) -> None:
        super().__init__(1)


@pytest.fixture(autouse=True)
def two_steps_and_few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    skills = TeacherPretraining.skills
    monkeypatch.setattr(TeacherPretraining, "skills", lambda self, rng, count: skills(self, rng, 16))
    monkeypatch.setattr(building, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(building, "recipe_of", lambda blueprint: Recipe(steps=2, text_batch=4))


def test_two_builds_of_one_recipe_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "TEACHER_GATE", {"solve": 0.0})
    hashes = []
    for name in ("one", "two"):
        building.build_checkpoints(tmp_path / name, ["teacher"])
        model = tmp_path / name / "teacher"
        hashes.append(sha256((model / "model.safetensors").read_bytes()).hexdigest())
        assert json.loads((model / "recipe.json").read_text())["sha256"] == hashes[-1]
    assert hashes[0] == hashes[1]


def test_a_model_below_its_gate_is_named_and_not_published(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"below their gate were not published: \{'teacher': \{'solve': 0"):
        building.build_checkpoints(tmp_path, ["teacher"])
    assert list(tmp_path.iterdir()) == []
