"""The layers written out for decoding, against those of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.conftest import need
from vold.config import LoraConfig
from vold.models import LanguageModel, Student, load_student
from vold.models.lora import add_adapters
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.cache import GrowingLayer
from vold.rollout.decoder import _LayerDecoder, _QwenDecoder, decoder_of

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attn_implementation": "vold_sdpa",
}


def bare(model: torch.nn.Module) -> LanguageModel:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return LanguageModel(Path("bare"), model.eval(), None)


def qwen2() -> LanguageModel:
    return bare(Qwen2ForCausalLM(Qwen2Config(**SIZES)))


def qwen3(**settings: Any) -> LanguageModel:
    return bare(Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, **settings)))


@pytest.fixture(params=["student", "teacher", "qwen2", "qwen3 with biases", "qwen3 with all heads", "qwen3 with YaRN"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    builders: dict[str, Callable[[], LanguageModel]] = {
        "student": lambda: request.getfixturevalue("student"),
        "teacher": lambda: request.getfixturevalue("teacher"),
        "qwen2": qwen2,
        "qwen3 with biases": lambda: qwen3(attention_bias=True),
        "qwen3 with all heads": lambda: bare(
            Qwen3ForCausalLM(Qwen3Config(**{**SIZES, "num_key_value_heads": 4}, head_dim=16))
        ),
        "qwen3 with YaRN": lambda: qwen3(rope_parameters=yarn),
    }
    torch.manual_seed(0)
    return builders[request.param]()


@torch.inference_mode()
def walk(model: LanguageModel, decoder: Callable[..., Tensor]) -> Tensor:
    """Hidden states [rows, steps, hidden] of three rows that start at different positions, the second left-padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(40, (3, 20), generator=generator)
    mask = torch.zeros(3, 1, 1, 20, dtype=model.head.dtype)
    mask[1, ..., :2] = -torch.inf
    cache, start = Cache(layer_class_to_replicate=GrowingLayer), torch.tensor([0, 5, 9])
    states = []
    for step in range(20):
        visible = mask[..., : step + 1].clone()
        visible[1, ..., step] = 0  # a padding position sees itself
        one_position = decoder if step else _LayerDecoder(model.trunk)  # as after a prompt
        states.append(one_position(ids[:, step], start + step, cache, visible))
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("joined", [True, False])
def test_written_out_layers_agree_with_those_of_transformers(
    model: LanguageModel, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not joined:
        monkeypatch.setattr("vold.rollout.decoder.JOINED_BYTES", 0)
    decoder = decoder_of(model, longest=40)
    assert isinstance(decoder, _QwenDecoder) and len(decoder.layers[0].gate_up.weights) == (1 if joined else 2)
    states, expected = walk(model, decoder), walk(model, _LayerDecoder(model.trunk))
    assert expected.std() > 0.1
    torch.testing.assert_close(states, expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_written_out_layers_agree_in_half_precision(autocast: bool) -> None:
    torch.manual_seed(0)
    model = qwen3()
    exact = walk(model, _LayerDecoder(model.trunk))
    if not autocast:
        model.model.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        layers = walk(model, _LayerDecoder(model.trunk))
        written_out = walk(model, decoder_of(model, longest=40))
    assert written_out.dtype == layers.dtype
    error = (layers - exact).float().square().mean()
    assert 0 < (written_out - exact).float().square().mean() < 1.2 * error


def test_other_models_use_the_layers_of_transformers(student_path: Path) -> None:
    assert isinstance(decoder_of(qwen3(hidden_act="gelu"), 40), _LayerDecoder)
    need("peft", "lora")
    adapted = load_student(student_path)
    add_adapters(adapted, LoraConfig(targets=("q_proj",)), seed=1)
    assert isinstance(decoder_of(adapted, 40), _LayerDecoder)


def test_weights_are_read_again_for_every_batch_of_rollouts(student_path: Path) -> None:
    model: Student = load_student(student_path)
    engine, fresh = BuiltinEngine(model), load_student(student_path)
    requests = [RolloutRequest(model.encode_text("some words"), (1, 2))]
    sampling = Sampling(12, 1.0, (), model.banned_ids)
    before = engine.generate(requests, sampling)
    with torch.no_grad():
        for one, other in zip(model.model.parameters(), fresh.model.parameters(), strict=True):
            one.mul_(1.1)
            other.mul_(1.1)
    after = engine.generate(requests, sampling)
    assert after != before
    assert after == BuiltinEngine(fresh).generate(requests, sampling)
