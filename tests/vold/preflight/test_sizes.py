"""Counts from a config alone against published numbers, hand counts and what autograd really keeps."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen2_5_VLConfig, Qwen3Config

from vold.models import attention
from vold.preflight.checkpoints import Checkpoint
from vold.preflight.sizes import Sizes, count


def qwen3_8b() -> Checkpoint:
    """The published config.json of Qwen/Qwen3-8B, as far as it has sizes."""
    config = Qwen3Config(
        vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False, max_position_embeddings=40_960,
    )  # fmt: skip
    return Checkpoint("teacher", Path("Qwen3-8B"), config)


def qwen2_5_vl_3b() -> Checkpoint:
    """The published config.json of Qwen/Qwen2.5-VL-3B-Instruct, as far as it has sizes."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 128_000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
            "patch_size": 14, "spatial_merge_size": 2,
        },
        tie_word_embeddings=True,
    )  # fmt: skip
    return Checkpoint("student", Path("Qwen2.5-VL-3B"), config)


def test_parameters_are_those_that_the_model_cards_weigh() -> None:
    # Sums of the safetensors headers that the hub shows for both releases.
    assert count(qwen3_8b()).total == 8_190_735_360
    assert count(qwen2_5_vl_3b()).total == 3_754_622_976


def test_frozen_parts_leave_what_a_hand_count_of_the_layers_gives() -> None:
    attention_ = 2 * 2048 * 2048 + 2048 + 2 * (2048 * 256 + 256)  # q with bias, o without; k and v with
    layer = attention_ + 3 * 2048 * 11_008 + 2 * 2048
    language = 36 * layer + 2048 + 151_936 * 2048
    merger = 1280 + 5120 * 5120 + 5120 + 5120 * 2048 + 2048
    student = qwen2_5_vl_3b()
    assert count(student, ("vision", "merger")).trained == language
    assert count(student, ("vision",)).trained == language + merger
    assert count(student, ("vision", "merger", "embeddings")).trained == language - 151_936 * 2048
    assert count(student, None).trained == 0


def test_bytes_and_flops_of_a_token_are_the_known_ones() -> None:
    assert count(qwen2_5_vl_3b()).cache_bytes(2) == 36_864
    teacher = count(qwen3_8b())
    matrices = teacher.total - 151_936 * 4096  # the input embedding is looked up, not multiplied
    assert 2 * matrices == pytest.approx(15.1e9, rel=5e-3)


def saved(config: PreTrainedConfig, tokens: int, bf16: bool) -> int:
    """Bytes that autograd keeps of a forward pass, weights and their casts left out."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.register())
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        ids, positions = torch.zeros(1, tokens, dtype=torch.long), torch.arange(tokens)[None]
        mask = {"full_attention": None}
        model.get_decoder()(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    casts = sum(w.numel() for name, w in model.named_parameters() if w.ndim == 2 and "layers" in name) * 2 * bf16
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) - casts


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("intermediate", [704, 1024])
def test_what_a_layer_saves_is_what_autograd_keeps(intermediate: int, bf16: bool) -> None:
    sizes = dict(vocab_size=64, hidden_size=256, intermediate_size=intermediate, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=64, max_position_embeddings=512)  # fmt: skip
    one, two = (Qwen3Config(num_hidden_layers=layers, **sizes) for layers in (1, 2))
    tokens = 192
    measured = (saved(two, tokens, bf16) - saved(one, tokens, bf16)) / tokens
    counted: Sizes = count(Checkpoint("teacher", Path(), two))
    assert counted.saved_bytes(2 if bf16 else 4) == pytest.approx(measured, rel=0.03)
