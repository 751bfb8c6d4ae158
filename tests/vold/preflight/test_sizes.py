"""Sizes from a config against published numbers, counts by hand and the tensors that autograd keeps."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2_5_VLConfig, Qwen3Config

from perf.roofline import QWEN2_5_VL_3B, QWEN3_8B
from tests.conftest import need
from vold.config import LoraConfig
from vold.models import LanguageModel, Student, attention, load_student
from vold.models.checkpoint import Checkpoint
from vold.models.layout import Layout, Segment
from vold.models.recomputation import enable_recomputation
from vold.preflight.sizes import model_sizes


def qwen3_8b() -> Checkpoint:
    return Checkpoint("teacher", Path("Qwen3-8B"), Qwen3Config(**QWEN3_8B))


def qwen2_5_vl_3b() -> Checkpoint:
    return Checkpoint("student", Path("Qwen2.5-VL-3B"), Qwen2_5_VLConfig(**QWEN2_5_VL_3B))


def test_parameters_equal_those_of_the_published_weights() -> None:
    # Sums of the safetensors headers that the hub shows for both releases.
    assert model_sizes(qwen3_8b()).total == 8_190_735_360
    assert model_sizes(qwen2_5_vl_3b()).total == 3_754_622_976


def test_trained_parameters_equal_a_count_by_hand() -> None:
    attention_ = 2 * 2048 * 2048 + 2048 + 2 * (2048 * 256 + 256)  # q with bias, o without; k and v with
    layer = attention_ + 3 * 2048 * 11_008 + 2 * 2048
    language = 36 * layer + 2048 + 151_936 * 2048
    merger = 1280 + 5120 * 5120 + 5120 + 5120 * 2048 + 2048
    student = qwen2_5_vl_3b()
    assert model_sizes(student, ("vision", "merger")).trained == language
    assert model_sizes(student, ("vision",)).trained == language + merger
    assert model_sizes(student, ("vision", "merger", "embeddings")).trained == language - 151_936 * 2048
    assert model_sizes(student, None).trained == 0


def test_bytes_and_flops_per_token_are_the_published_ones() -> None:
    assert model_sizes(qwen2_5_vl_3b()).cache_bytes(2) == 36_864
    teacher = model_sizes(qwen3_8b())
    matrices = teacher.total - 151_936 * 4096  # the input embedding is looked up, not multiplied
    assert 2 * matrices == pytest.approx(15.1e9, rel=5e-3)


def test_adapters_are_counted_as_peft_makes_them(student_path: Path) -> None:
    need("peft", "lora")
    from vold.models.lora import add_adapters

    student: Student = load_student(student_path)
    side = Checkpoint("student", student_path, student.model.config)
    whole = model_sizes(side, ())
    for lora in (LoraConfig(), LoraConfig(rank=3, targets=("q_proj", "down_proj"))):
        adapted = load_student(student_path)
        add_adapters(adapted, lora, seed=0)
        learning = sum(p.numel() for p in adapted.model.parameters() if p.requires_grad)
        counted = model_sizes(side, (), lora)
        assert (counted.trained, counted.total) == (learning, whole.total + learning)


def saved(layers: int, intermediate: int, tokens: int, bf16: bool, recomputed: bool) -> tuple[int, Qwen3Config]:
    """Bytes that autograd keeps of the trainer's own forward pass, without weights and their casts."""
    config = Qwen3Config(
        vocab_size=64, hidden_size=256, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=512,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.register()).eval()
    if recomputed:
        enable_recomputation(model)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    layout = Layout([Segment(0, tokens // 2), Segment(tokens // 2, tokens // 2)], torch.device("cpu"))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        ids, positions = torch.zeros(tokens, dtype=torch.long), torch.arange(tokens)[None]
        LanguageModel(Path(), model, None).hidden_states(ids, positions, layout)
    cast = [w for name, w in model.named_parameters() if w.ndim == 2 and "layers" in name]
    casts = 0 if recomputed or not bf16 else 2 * sum(weight.numel() for weight in cast)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) - casts, config


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("intermediate", [704, 1024])
def test_saved_bytes_of_a_layer_equal_those_that_autograd_keeps(intermediate: int, bf16: bool) -> None:
    tokens = 192
    one, two = (saved(layers, intermediate, tokens, bf16, recomputed=False) for layers in (1, 2))
    counted = model_sizes(Checkpoint("teacher", Path(), two[1])).saved_bytes(2 if bf16 else 4)
    assert counted == pytest.approx((two[0] - one[0]) / tokens, rel=0.05)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_recomputed_layer_keeps_its_input_in_fp32(bf16: bool) -> None:
    one, two = (saved(layers, 704, 192, bf16, recomputed=True) for layers in (1, 2))
    assert two[0] - one[0] == 192 * 256 * 4
