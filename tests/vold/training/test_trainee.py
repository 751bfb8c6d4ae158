"""Adapters and recomputation over complete training runs."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.conftest import need
from vold.config import RLConfig
from vold.execution import Execution
from vold.training.rl import train_rl


def test_adapters_train_with_and_without_recomputation_and_leave_an_ordinary_checkpoint(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    need("peft", "lora")
    small = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 12}
    config = RLConfig.model_validate(
        small | {"optimizer": {"learning_rate": 3e-3}, "lora": {"rank": 2}, "distill": {"weight": 1.0, "mask": "all"}}
    )
    weights = {}
    for name, recompute in (("plain", False), ("recomputed", True)):
        execution = Execution(threads=1, gradient_checkpointing=recompute, checkpoint_every=2)
        run = tmp_path / name
        train_rl(
            config, student=student_path, teacher=teacher_path, prompts=prompts, run=run, seed=1, execution=execution
        )
        weights[name] = load_file(run / "out" / "model.safetensors")
    before = load_file(student_path / "model.safetensors")
    assert weights["plain"].keys() == before.keys()
    for name, tensor in weights["plain"].items():
        assert torch.equal(tensor, weights["recomputed"][name])
        assert torch.equal(tensor, before[name]) == (not name.endswith("_proj.weight") or "visual" in name)
