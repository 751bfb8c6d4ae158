"""The student as it is trained: which weights learn, and what is kept for their gradients."""

from pathlib import Path

import torch

from vold.config import Execution, RLConfig, SFTConfig
from vold.models import Student, freeze, load_student, to_freeze
from vold.models.lora import add_adapters
from vold.models.recomputation import enable_recomputation


def load_trainee(
    path: Path, config: SFTConfig | RLConfig, execution: Execution, device: torch.device, seed: int, *, images: bool
) -> Student:
    """The student at ``path`` with its parts frozen, adapters added and recomputation enabled as configured.

    ``images``: whether the training data has some; else the parts that only they reach are frozen too.
    """
    student = load_student(path, device=device)
    freeze(student, to_freeze(config.freeze, images=images))
    if config.lora is not None:
        add_adapters(student, config.lora, seed)
    if execution.gradient_checkpointing:
        enable_recomputation(student.model)
    return student
