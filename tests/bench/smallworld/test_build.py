"""Building a bundled checkpoint: the same bytes every time, and no checkpoint below its gate."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bench.smallworld import build as building
from bench.smallworld import checkpoint_path, cold_start
from bench.smallworld.pretrain import Recipe, TeacherPretraining
from vold.data.reading import read_prompts

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
    monkeypatch.setattr(building, "TEACHER_GATE", {"solve": (0.0, 1.0)})
    hashes = []
    for name in ("one", "two"):
        building.build_checkpoints(tmp_path / name, ["teacher"])
        model = tmp_path / name / "teacher"
        hashes.append(sha256((model / "model.safetensors").read_bytes()).hexdigest())
        assert json.loads((model / "recipe.json").read_text())["sha256"] == hashes[-1]
    assert hashes[0] == hashes[1]


def test_a_model_below_its_gate_is_named_and_not_published(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"outside their gate were not published: \{'teacher': \{'solve': 0"):
        building.build_checkpoints(tmp_path, ["teacher"])
    assert list(tmp_path.iterdir()) == []


def test_a_student_outside_the_band_of_its_cold_start_is_named_and_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_train", lambda name, work: {"text/drill": 1.0})
    monkeypatch.setattr(
        building, "_cold_starts", lambda students, *_: {name: {"cold-start/ledger/gap": 0.06} for name in students}
    )
    monkeypatch.setattr(building, "STUDENT_GATE", {"text/drill": (0.97, 1.0), "cold-start/ledger/gap": (-0.05, 0.05)})
    with pytest.raises(RuntimeError, match=r"\{'student_a': \{'cold-start/ledger/gap': 0.06\}\}"):
        building.build_checkpoints(tmp_path, ["student_a"])
    assert list(tmp_path.iterdir()) == []


def test_the_standard_cold_start_measures_the_same_problems_as_texts_and_as_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_start, "SEEDS", (103,))
    monkeypatch.setattr(cold_start, "PROBLEMS", 24)
    monkeypatch.setattr(cold_start, "TRACES", 40)
    traces = cold_start.write_teacher_traces(checkpoint_path("teacher"), tmp_path / "traces")
    skills = cold_start.cold_start_skills(checkpoint_path("student_a"), {"ledger": traces}, tmp_path / "run")
    texts, images = (read_prompts(tmp_path / "run" / f"{form}.jsonl") for form in ("text", "image"))
    assert [text.answer for text in texts] == [image.answer for image in images]
    assert [text.text for text in texts] == [image.in_words() for image in images]
    assert skills["cold-start/ledger/gap"] == skills["cold-start/ledger/text"] - skills["cold-start/ledger/image"]
    assert set(skills) == {f"cold-start/ledger/{name}" for name in ("text", "image", "gap")}
