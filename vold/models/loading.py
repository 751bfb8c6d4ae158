"""Loads students and teachers from Hugging Face checkpoint directories."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging as hf_logging

from vold.findings import Finding
from vold.models import attention
from vold.models.checkpoint import Role, Tokenizer, directory_findings, read_config, role_findings, weight_findings
from vold.models.encoder import Encoder
from vold.models.language_model import LanguageModel
from vold.models.student import Student

# We show our own progress. transformers would draw a bar for every load and save.
hf_logging.disable_progress_bar()


class ModelError(ValueError):
    """A checkpoint does not suit its role. The message names the directory and the fix."""


def _checked_config(role: Role, path: Path, weights: bool = True) -> PreTrainedConfig:
    """The checkpoint's config. Raises ModelError for faults that transformers would report less clearly.

    weights: whether to check the weight files too.
    """
    _refuse(directory_findings(path))
    config, findings = read_config(path)
    _refuse(findings)
    assert config is not None  # otherwise there was a finding
    _refuse(role_findings(role, path, config) + (weight_findings(path, config) if weights else []))
    return config


def _refuse(findings: Sequence[Finding]) -> None:
    if findings:
        raise ModelError("\n".join(map(str, findings)))


def _load(loader: Any, path: Path, dtype: torch.dtype, device: torch.device | str) -> PreTrainedModel:
    model = loader.from_pretrained(
        path, dtype=dtype, trust_remote_code=False, use_safetensors=True, attn_implementation=attention.register()
    )
    # The models are always in evaluation mode, because they are trained without dropout.
    return model.to(device).eval()


def _tokenizer(path: Path) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{path}: the tokenizer has no chat template (tokenizer_config.json or chat_template.jinja); copy "
            "chat_template.jinja of the instruction-tuned release"
        )
    return tokenizer


def load_encoder(path: Path, pixel_limits: tuple[int, int] | None = None, thinking: bool | None = None) -> Encoder:
    """Load the encoder of a Qwen2.5-VL checkpoint, which turns chats into its input. Weights are not read.

    Raises ModelError, also if ``thinking`` is given and the chat template has no such switch.
    """
    config = _checked_config("student", path, weights=False)
    processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    tokenizer = _tokenizer(path)
    if thinking is not None and "enable_thinking" not in str(tokenizer.chat_template):
        raise ModelError(
            f"{path}: the chat template has no switch enable_thinking, so thinking cannot be set; leave that setting "
            "out, or use a checkpoint whose template has the switch"
        )
    return Encoder(tokenizer, processor, config.image_token_id, pixel_limits, thinking)


def load_student(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pixel_limits: tuple[int, int] | None = None,
) -> Student:
    """Load a Qwen2.5-VL checkpoint. Raises ModelError if ``path`` does not contain one."""
    _checked_config("student", path)
    processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    model = _load(AutoModelForImageTextToText, path, dtype, device)
    return Student(path, model, _tokenizer(path), processor, pixel_limits)


def load_teacher(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """Load a text-only causal model and freeze it. Raises ModelError if ``path`` does not contain one."""
    _checked_config("teacher", path)
    try:
        model = _load(AutoModelForCausalLM, path, dtype, device)
    except ValueError as error:
        raise ModelError(f"{path}: not a causal language model ({error})") from error
    return LanguageModel(path, model.requires_grad_(False), _tokenizer(path))
