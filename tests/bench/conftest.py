"""Fixtures of the suite's tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.special_tokens import CHAT_TEMPLATE, SPECIAL_TOKENS


def byte_level_tokenizer() -> Any:
    """A byte-level BPE trained here, so that nothing is fetched."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    text = ["Which number should stand in place of the question mark?", "How many squares are there? Answer: 12."] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(text, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def released_geometry(ids: Callable[[str], int]) -> Any:
    """The configuration of a Qwen2.5-VL with the released patches (14, merged by 2), else tiny; ``ids``: of tokens."""
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "vocab_size": 352,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "eos_token_id": ids("<|im_end|>"),
            "bos_token_id": None,
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="session")
def random_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL checkpoint of the released geometry with random weights."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    path = tmp_path_factory.mktemp("random_student")
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(7)
    model = Qwen2_5_VLForConditionalGeneration(released_geometry(tokenizer.convert_tokens_to_ids))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2).save_pretrained(path)
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Ten MathVision records without images."""
    root = tmp_path / "texts"
    root.mkdir()
    rows = [
        {"id": str(number), "question": f"What is {number} modulo 7?", "options": [], "answer": str(number % 7),
         "image": "absent.png", "level": 1, "subject": "counting"}
        for number in range(10)
    ]  # fmt: skip
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def no_model(tmp_path: Path) -> Path:
    """A directory that is taken for a checkpoint by all who do not load it."""
    path = tmp_path / "no_model"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")
    return path
