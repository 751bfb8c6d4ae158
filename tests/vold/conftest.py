"""Tiny random students and teachers in Hugging Face format, and a byte-level tokenizer for them."""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.helpers.special_tokens import CHAT_TEMPLATE, SPECIAL_TOKENS
from vold.models import LanguageModel, Student, load_student, load_teacher

VOCABULARY_ROWS = 300


def byte_tokenizer(extra: tuple[str, ...] = (), first: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte. ``first`` shifts all ids, and ``extra`` adds tokens at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*first, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    core.add_tokens([AddedToken(token, special=False) for token in extra])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def save_student(
    path: Path, *, seed: int = 0, mrope_section: tuple[int, int, int] = (0, 0, 16), tied: bool = True
) -> Path:
    """Save a Qwen2.5-VL with random weights: hidden size 64, 2 layers, heads of size 32, patch 8, merge 2."""
    tokenizer = byte_tokenizer()
    ids = tokenizer.get_vocab()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY_ROWS,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(mrope_section)},
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        tie_word_embeddings=tied,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    _spread(model)
    processor = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 256, "longest_edge": 64 * 256}
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def save_teacher(path: Path, *, seed: int = 1, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """Save a Qwen3 with random weights: hidden size 64, 2 layers, heads of 32, more token rows than the student."""
    tokenizer = tokenizer or byte_tokenizer(extra=("<think>", "</think>"))
    config = Qwen3Config(
        vocab_size=VOCABULARY_ROWS + 20,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()["<|im_end|>"],
        pad_token_id=tokenizer.get_vocab()["<|endoftext|>"],
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    _spread(model)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _spread(model: torch.nn.Module) -> None:
    """Widen the weights, so that next-token distributions are far from uniform. Flat ones would hide faults."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def build_student() -> Callable[..., Path]:
    return save_student


@pytest.fixture(scope="session")
def build_teacher() -> Callable[..., Path]:
    return save_teacher


@pytest.fixture(scope="session")
def build_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    return byte_tokenizer


@pytest.fixture(scope="session")
def student_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_student(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="session")
def student(student_path: Path) -> Student:
    """A student for tests that change neither its weights nor its gradients."""
    return load_student(student_path)


@pytest.fixture(scope="session")
def teacher(teacher_path: Path) -> LanguageModel:
    return load_teacher(teacher_path)


@pytest.fixture(scope="session")
def image() -> Image.Image:
    """40 x 70 pixels of noise: several visual tokens in two rows."""
    values = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    return Image.fromarray(values)
