"""Loads the student for training: which of its parts are trained, and how their gradients are computed."""

from pathlib import Path

import torch

from vold.config import RLConfig, SFTConfig
from vold.execution import Execution
from vold.models import Student, freeze, load_student, to_freeze
from vold.models.lora import add_adapters
from vold.models.recomputation import enable_recomputation


def load_trainee(
    path: Path, config: SFTConfig | RLConfig, execution: Execution, device: torch.device, seed: int, *, images: bool
) -> Student:
    """The student at ``path``, with parts frozen, adapters added and recomputation enabled as configured.

    images: whether the training data have images. Without them, the parts that only images reach are frozen too.
    """
    student = load_student(path, device=device)
    freeze(student, to_freeze(config.freeze, images=images))
    if config.lora is not None:
        add_adapters(student, config.lora, seed)
    if execution.gradient_checkpointing:
        enable_recomputation(student.model)
    return student
