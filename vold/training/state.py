"""The training state of a run, from which it resumes: trained weights and AdamW moments, and the step as JSON."""

import json
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from vold.files import publish_directory, scratch_path
from vold.training.optim import Optimizer

SCHEMA = "vold-bench/training-state@2"


def save_state(directory: Path, optimizer: Optimizer, step: int) -> None:
    """Write ``directory/step-N`` atomically, one file per rank, and remove older states. Every rank must call it.

    Raises DiskFullError if the disk is full, and keeps the older states then.
    """
    target = directory / f"step-{step:08d}"
    ranks = optimizer.ranks
    if not ranks.main:
        ranks.barrier()
        _write(scratch_path(target), optimizer)
        ranks.barrier()
        return
    with publish_directory(target) as scratch:
        state = {"schema": SCHEMA, "step": step, "nonfinite_in_a_row": optimizer.nonfinite_in_a_row,
                 "layout": optimizer.layout}  # fmt: skip
        (scratch / "state.json").write_text(json.dumps(state))
        ranks.barrier()
        _write(scratch, optimizer)
        ranks.barrier()
    for old in directory.glob("step-*"):
        if old != target:
            shutil.rmtree(old)


def _write(directory: Path, optimizer: Optimizer) -> None:
    tensors = optimizer.tensors()
    if tensors:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / optimizer.file)


def load_state(directory: Path, optimizer: Optimizer) -> int:
    """Restore the newest state in ``directory`` and return its step, or 0 if there is none.

    Raises ValueError if the state belongs to another model, is damaged, or was written with another strategy or number
    of processes.
    """
    newest = max(directory.glob("step-*"), default=None)
    if newest is None:
        return 0
    state = json.loads((newest / "state.json").read_text())
    if state.get("schema") == SCHEMA and state["layout"] != optimizer.layout:
        raise ValueError(
            f"{newest}: written by a run with {state['layout']}, this one has {optimizer.layout}; "
            "resume with the same strategy and number of processes, or remove the directory to start over"
        )
    try:
        if state.get("schema") != SCHEMA:
            raise ValueError(f"schema {state.get('schema')!r}")
        optimizer.restore(load_file(newest / optimizer.file))
    except (ValueError, KeyError, FileNotFoundError, SafetensorError) as error:
        raise ValueError(
            f"{newest}: belongs to another model or version, or is damaged ({error}); "
            "remove the stage's directory to start over"
        ) from error
    optimizer.nonfinite_in_a_row = state["nonfinite_in_a_row"]
    return int(state["step"])


def remove_states(directory: Path) -> None:
    """Remove all training states of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)
