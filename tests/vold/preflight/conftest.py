"""A healthy run that a test may spoil: copies of tiny checkpoints, data and settings."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from vold.config import RLConfig, SFTConfig
from vold.execution import Execution
from vold.preflight.devices import Device
from vold.preflight.job import Job


@dataclass
class World:
    """The files and settings of one run. Only this test uses its directories."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    kind: str = "rl"
    alone: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def student(self) -> Path:
        return self.root / "student"

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    def edit(self, file: Path, **changes: Any) -> None:
        """Set keys of a JSON file. A dict is merged into the present value."""
        data = json.loads(file.read_text())
        for key, value in changes.items():
            data[key] = {**data[key], **value} if isinstance(value, dict) else value
        file.write_text(json.dumps(data))

    def use_traces(self, *completions: str, **settings: Any) -> None:
        """Turn the run into a cold start on these completions."""
        self.kind = "sft"
        self.settings = {"steps": 10, "batch_size": 1, "max_length": 200, **settings}
        self.settings["optimizer"] = {"learning_rate": 1e-3}
        self.rows = [{"id": str(i), "text": "1+1=?", "completion": text} for i, text in enumerate(completions)]

    def job(self) -> Job:
        data = self.root / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        job = Job(
            config=(SFTConfig if self.kind == "sft" else RLConfig).model_validate(self.settings),
            student=self.student,
            teacher=None if self.alone or self.kind == "sft" else self.teacher,
            data=data,
            run=self.root / "run",
            execution=Execution(device="cpu", micro_batch_tokens=256),
            device=Device("H100", 80 << 30),
            where=lambda key: f"run.yaml {key}",
        )
        return replace(job, **self.changes)


@pytest.fixture
def world(student_path: Path, teacher_path: Path, tmp_path: Path) -> World:
    """A healthy RL run of a tiny student with a tiny teacher."""
    shutil.copytree(student_path, tmp_path / "student")
    shutil.copytree(teacher_path, tmp_path / "teacher")
    rows = [{"id": str(i), "text": f"{i}+1=?", "answer": str(i + 1)} for i in range(8)]
    settings = {"steps": 20, "prompts_per_step": 4, "max_new_tokens": 64, "distill": {"weight": 0.1}}
    return World(tmp_path, settings, rows)


@pytest.fixture
def rebuild(build_teacher: Callable[..., Path], build_tokenizer: Callable[..., Any]) -> Callable[..., None]:
    """A function that replaces the teacher by one with another tokenizer."""

    def make(world: World, **tokenizer: Any) -> None:
        shutil.rmtree(world.teacher)
        build_teacher(world.teacher, tokenizer=build_tokenizer(**tokenizer))

    return make
