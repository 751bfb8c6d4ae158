"""LoRA adapters: their effect, their training and the checkpoint with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.conftest import need
from vold.config import LoraConfig
from vold.models import LanguageModel, Student, load_student, save_checkpoint
from vold.models.lora import add_adapters, merged_weights
from vold.models.packing import TokenSequence, completion_hidden, completion_targets
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine

ROWS = [TokenSequence((1, 2, 3), (9, 8, 7, 6)), TokenSequence((4, 5), (6,))]
CONFIG = LoraConfig(rank=2, alpha=4, targets=("q_proj", "down_proj"))


@pytest.fixture
def adapted(student_path: Path) -> Student:
    need("peft", "lora")
    model = load_student(student_path)
    add_adapters(model, CONFIG, seed=1)
    return model


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return torch.nn.functional.linear(completion_hidden(model, ROWS), model.head)


def train(model: Student, steps: int = 3) -> None:
    learning = [p for p in model.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.5)
    for _ in range(steps):
        scores = torch.nn.functional.linear(completion_hidden(model, ROWS), model.head)
        torch.nn.functional.cross_entropy(scores, completion_targets(ROWS, model.device)).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_new_adapters_change_nothing_and_only_they_learn(adapted: Student, student: Student) -> None:
    assert torch.equal(logits(adapted), logits(student))
    learning = [name for name, p in adapted.model.named_parameters() if p.requires_grad]
    assert len(learning) == 2 * 2 * 2, "two matrices, two targets, two layers"
    assert all(".lora_" in name and "language_model" in name for name in learning)
    assert all("q_proj" in name or "down_proj" in name for name in learning)


def test_training_changes_only_the_adapters(adapted: Student, student: Student) -> None:
    train(adapted)
    assert not torch.allclose(logits(adapted), logits(student), atol=1e-2)
    before, after = student.model.state_dict(), adapted.model.state_dict()
    for name, tensor in after.items():
        if ".lora_" not in name:
            assert torch.equal(tensor, before[name.replace(".base_layer.", ".")]), name


def test_the_checkpoint_is_merged_and_loads_as_an_ordinary_one(adapted: Student, tmp_path: Path) -> None:
    train(adapted)
    save_checkpoint(adapted, tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    original = load_file(adapted.path / "model.safetensors")
    assert saved.keys() == original.keys()
    changed = {name for name in saved if not torch.equal(saved[name], original[name])}
    assert {name.rsplit(".", 2)[1] for name in changed} == {"q_proj", "down_proj"}
    torch.testing.assert_close(logits(load_student(tmp_path / "out")), logits(adapted), atol=1e-4, rtol=1e-4)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        scores = plain(input_ids=torch.tensor([ROWS[0].prompt_ids + ROWS[0].completion_ids])).logits[0, 2:6]
    torch.testing.assert_close(scores, logits(adapted)[:4], atol=1e-4, rtol=1e-4)


def test_rollouts_are_drawn_with_the_adapters(adapted: Student) -> None:
    train(adapted)
    request = RolloutRequest((1, 2, 3), (5,))
    completion = BuiltinEngine(adapted).generate([request], Sampling(6))[0][0]
    row = TokenSequence(request.prompt_ids, completion.completion_ids)
    with torch.no_grad():
        scores = torch.nn.functional.linear(completion_hidden(adapted, [row]), adapted.head).log_softmax(-1)
    chosen = scores.gather(1, torch.tensor(completion.completion_ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.logprobs), chosen, atol=1e-4, rtol=1e-4)


def test_adapters_start_the_same_from_the_same_seed(adapted: Student, student_path: Path) -> None:
    def starts(model: Student) -> dict[str, torch.Tensor]:
        return {name: p for name, p in model.model.named_parameters() if ".lora_A" in name}

    same, other = load_student(student_path), load_student(student_path)
    add_adapters(same, CONFIG, seed=1)
    add_adapters(other, CONFIG, seed=2)
    for name, tensor in starts(adapted).items():
        assert torch.equal(tensor, starts(same)[name])
        assert not torch.equal(tensor, starts(other)[name])


def test_an_unknown_target_is_named_with_the_choices(build_student: Callable[..., Path], student_path: Path) -> None:
    need("peft", "lora")
    with pytest.raises(ValueError, match=r"lora\.targets: no linear layer 'query'; choose from .*q_proj"):
        add_adapters(load_student(student_path), LoraConfig(targets=("query",)), seed=1)


def test_merged_weights_are_the_same_tensors_for_layers_without_adapters(adapted: Student, student: Student) -> None:
    live, merged = student.model.state_dict(), merged_weights(student)
    assert merged.keys() == live.keys() == merged_weights(adapted).keys()
    assert all(merged[name].data_ptr() == tensor.data_ptr() for name, tensor in live.items())
    assert not any(tensor.requires_grad for tensor in merged_weights(adapted).values())
