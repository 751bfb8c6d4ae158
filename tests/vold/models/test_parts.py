"""Frozen parts keep their bytes and the others learn, the vision tower from rows with images."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

from vold.config import FreezablePart, OptimizerConfig
from vold.models import Student, freeze, load_student
from vold.models.packing import TokenSequence, completion_hidden
from vold.training.optim import Optimizer

PARTS: dict[FreezablePart, str] = {
    "vision": "model.visual.",
    "merger": "model.visual.merger.",
    "embeddings": "embed_tokens",
}


def part_of(name: str) -> str:
    if PARTS["merger"] in name:
        return "merger"
    return "vision" if PARTS["vision"] in name else "embeddings" if PARTS["embeddings"] in name else "language"


@pytest.mark.parametrize("frozen", [(), ("vision",), ("merger",), ("vision", "merger", "embeddings"), ("embeddings",)])
def test_frozen_parts_stay_byte_for_byte_and_the_others_learn(
    frozen: tuple[FreezablePart, ...], student: Student, student_path: Path, image: Image.Image
) -> None:
    assert set(PARTS) == set(get_args(FreezablePart))
    model = load_student(student_path)
    freeze(model, frozen)
    optimizer = Optimizer(model.model, OptimizerConfig(learning_rate=1e-2), max_nonfinite=1)
    prompt = model.encode([{"role": "user", "content": [{"type": "image"}]}], [image])
    rows = [
        TokenSequence(prompt.prompt_ids, (5, 6, 7), prompt.pixels),
        TokenSequence(prompt.prompt_ids, (8,), prompt.pixels),
    ]
    for _ in range(2):
        loss = completion_hidden(model, rows).square().sum()
        loss.backward()
        if "vision" in frozen:
            assert all(p.grad is None for n, p in model.model.named_parameters() if part_of(n) == "vision")
        optimizer.step(float(loss.detach()), 1e-2)
    before = dict(student.model.named_parameters())
    changed = {part_of(n) for n, p in model.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"vision", "merger", "embeddings", "language"} - set(frozen)
