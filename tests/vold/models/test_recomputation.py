"""Gradient checkpointing gives the same gradients as without it."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vold.models import Student, load_student
from vold.models.packing import TokenSequence, completion_hidden
from vold.models.recomputation import enable_recomputation
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine


@pytest.fixture
def recomputing(student_path: Path) -> Student:
    model = load_student(student_path)
    enable_recomputation(model.model)
    return model


def rows(model: Student, image: Image.Image) -> list[TokenSequence]:
    prompt = model.encode([{"role": "user", "content": [{"type": "image"}]}], [image])
    return [TokenSequence(prompt.prompt_ids, ids, prompt.pixels) for ids in ((1, 2, 3), (4, 5))] + [
        TokenSequence((1,), (2,))
    ]


def gradients(model: Student, image: Image.Image) -> dict[str, torch.Tensor]:
    model.model.zero_grad()
    completion_hidden(model, rows(model, image)).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}


def test_gradients_are_the_same_and_every_layer_runs_twice(
    recomputing: Student, student_path: Path, image: Image.Image
) -> None:
    runs: list[int] = []
    layer = recomputing.trunk.get_submodule("layers.1.mlp")
    layer.register_forward_pre_hook(lambda *_: runs.append(1))
    mine, plain = gradients(recomputing, image), gradients(load_student(student_path), image)
    assert len(runs) == 2
    assert mine.keys() == plain.keys() and any("visual.blocks" in name for name in mine)
    for name, gradient in mine.items():
        assert torch.equal(gradient, plain[name]), name


def test_decoding_and_scoring_are_not_affected(recomputing: Student, student: Student) -> None:
    request, sampling = RolloutRequest((1, 2, 3), (0, 1)), Sampling(8)
    assert BuiltinEngine(recomputing).generate([request], sampling) == BuiltinEngine(student).generate(
        [request], sampling
    )
    completion_hidden(recomputing, [TokenSequence((1, 2), (3, 4))]).sum().backward()
    assert not any(module.training for module in recomputing.model.modules())
