"""Reinforcement learning on the small world's images, with the real student."""

import json
from pathlib import Path

import pytest

from bench.matrix.inputs import InputResolver
from bench.matrix.yaml_file import Where
from bench.smallworld import checkpoint_path
from bench.store import Store
from vold.config import RLConfig
from vold.execution import Execution
from vold.training.rl import train_rl


@pytest.mark.slow
def test_grpo_on_images_runs_from_end_to_end_with_and_without_a_teacher(tmp_path: Path) -> None:
    prompts = InputResolver(Store(tmp_path), tmp_path).training_data("smallworld/rl_images?n=32", Where("here"))
    small = {"steps": 2, "prompts_per_step": 8, "group_size": 4, "max_new_tokens": 48}
    parts = {"freeze": ["vision"], "optimizer": {"learning_rate": 1e-4}}
    for name, distill in (("alone", {"monitor_every": 0}), ("taught", {"weight": 0.1, "images": "caption"})):
        train_rl(
            RLConfig.model_validate(small | parts | {"distill": distill}),
            student=checkpoint_path("student_a"),
            teacher=checkpoint_path("teacher") if name == "taught" else None,
            prompts=Path(prompts.location),
            run=tmp_path / name,
            seed=1,
            execution=Execution(threads=1, device="cpu"),
        )
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert (tmp_path / name / "out" / "model.safetensors").is_file()
        assert any(row["gradient_norm"] > 0 for row in rows)  # a base that mostly guesses may earn no reward in a step
        for row in rows:
            assert row["mismatch_q01"] == pytest.approx(1, abs=1e-3) == row["mismatch_q99"]
            assert (row["kl_exact"] is None) == (name == "alone")
