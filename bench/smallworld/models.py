"""Tiny models of the real architectures, drawn from a seed."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bench.smallworld.notation import mark_pairs
from bench.smallworld.render import CELL
from bench.smallworld.tokenizer import VOCABULARY, build_tokenizer

INITIALIZER_RANGE = 0.05


def _shared(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": None,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    }


def new_teacher(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A text-only teacher of about 1.0 M parameters."""
    config = Qwen3Config(
        hidden_size=144,
        intermediate_size=448,
        num_hidden_layers=4,
        head_dim=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **_shared(tokenizer),
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def new_student(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A vision-language student of about 1.0 M parameters: one visual token per cell of the image."""
    ids: Any = tokenizer.convert_tokens_to_ids
    outer: dict[str, Any] = {"initializer_range": INITIALIZER_RANGE}
    text = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [0, 0, 16]},
        **_shared(tokenizer),
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 2,
        "patch_size": CELL // 2,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": CELL * 4,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 128,
        "initializer_range": INITIALIZER_RANGE,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("["),
        vision_end_token_id=ids("]"),
        tie_word_embeddings=True,
        **outer,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"), do_sample=False
    )
    return model


def new_image_processor() -> Qwen2VLImageProcessorPil:
    """An image processor that does not scale images of the small world and reduces larger ones to 256 visual tokens."""
    return Qwen2VLImageProcessorPil(
        patch_size=CELL // 2,
        merge_size=2,
        temporal_patch_size=2,
        min_pixels=CELL * CELL,
        max_pixels=CELL * CELL * 256,
    )


def exchange_marks(weights: Path) -> None:
    """Exchange the embeddings of the marks of ``ledger`` and ``mirror`` in a checkpoint's weights, in place.

    The model then does with the marks of one notation exactly what it did with those of the other.
    """
    ids: Any = build_tokenizer().convert_tokens_to_ids
    tensors = load_file(weights)
    # The head is tied to the embeddings, so the checkpoint has only one table.
    table = tensors["model.embed_tokens.weight"]
    for left, right in mark_pairs():
        rows = [ids(left), ids(right)]
        table[rows] = table[rows[::-1]]
    save_file(tensors, weights, metadata={"format": "pt"})
