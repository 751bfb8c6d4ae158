"""Resumable state: trainable weights and AdamW moments as safetensors, the rest as JSON."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vold.files import publish_directory
from vold.training.optim import Optimizer

SCHEMA = "vold-bench/training-state@1"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_state(directory: Path, optimizer: Optimizer, step: int) -> None:
    """Write ``directory/step-N`` whole, then drop older ones; raises DiskFullError and keeps them otherwise."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in optimizer.named.items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.adamw.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.contiguous()
    target = directory / f"step-{step:08d}"
    with publish_directory(target) as scratch:
        save_file(tensors, scratch / "state.safetensors")
        state = {"schema": SCHEMA, "step": step, "nonfinite_in_a_row": optimizer.nonfinite_in_a_row}
        (scratch / "state.json").write_text(json.dumps(state))
    for old in directory.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def load_state(directory: Path, optimizer: Optimizer) -> int:
    """Restore the newest checkpoint under ``directory`` and return its step; 0 when there is none.

    Raises ValueError when its tensors are not those of this model.
    """
    newest = max(directory.glob("step-*"), default=None)
    if newest is None:
        return 0
    state = json.loads((newest / "state.json").read_text())
    tensors = load_file(newest / "state.safetensors")
    names = {key.split("/", 1)[1] for key in tensors}
    if state.get("schema") != SCHEMA or names != set(optimizer.named):
        raise ValueError(f"{newest}: belongs to another model or version; remove the stage's directory and start anew")
    with torch.no_grad():
        for name, parameter in optimizer.named.items():
            parameter.copy_(tensors[f"weight/{name}"])
            moments = {key: tensors[f"{key}/{name}"] for key in _MOMENTS if f"{key}/{name}" in tensors}
            if moments:
                device = parameter.device
                optimizer.adamw.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in moments.items()}
    optimizer.nonfinite_in_a_row = state["nonfinite_in_a_row"]
    return int(state["step"])


def remove_states(directory: Path) -> None:
    """Drop all checkpoints of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)
