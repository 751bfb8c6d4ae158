"""Load students and teachers from Hugging Face checkpoint directories."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2VLImageProcessorPil,
)
from transformers.utils import logging as hf_logging

from vold.models import attention
from vold.models.language_model import LanguageModel
from vold.models.student import Student

# Our own progress is the one shown; transformers would draw a bar for every load and save.
hf_logging.disable_progress_bar()

STUDENT_TYPES = ("qwen2_5_vl",)


class ModelError(ValueError):
    """A checkpoint that cannot play the part it was given; the message names the directory and the mend."""


def _checked_config(path: Path) -> Any:
    """The checkpoint's config, after the complaints that transformers would word less clearly."""
    if not path.is_dir():
        raise ModelError(f"{path}: no such checkpoint directory")
    if not (path / "config.json").is_file():
        raise ModelError(f"{path}: no config.json; give a directory in Hugging Face format")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{path}: no *.safetensors; other weight formats are not loaded, convert the checkpoint first")
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}/config.json: {error}") from error


def _load(loader: Any, path: Path, dtype: torch.dtype, device: torch.device | str) -> Any:
    model = loader.from_pretrained(
        path, dtype=dtype, trust_remote_code=False, use_safetensors=True, attn_implementation=attention.register()
    )
    # Evaluation mode throughout: these models are trained without dropout.
    return model.to(device).eval()


def _tokenizer(path: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ModelError(f"{path}: the tokenizer has no chat template (tokenizer_config.json or chat_template.jinja)")
    return tokenizer


def load_student(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pixel_limits: tuple[int, int] | None = None,
) -> Student:
    """Load a Qwen2.5-VL checkpoint; raises ModelError when ``path`` holds none."""
    config = _checked_config(path)
    if config.model_type not in STUDENT_TYPES:
        raise ModelError(
            f"{path}: the student must be a vision-language model ({', '.join(STUDENT_TYPES)}), "
            f"but config.json says model_type {config.model_type!r}"
        )
    if not (path / "preprocessor_config.json").is_file():
        raise ModelError(f"{path}: no preprocessor_config.json; a student needs its image processor")
    processor = Qwen2VLImageProcessorPil.from_pretrained(path)
    model = _load(AutoModelForImageTextToText, path, dtype, device)
    return Student(path, model, _tokenizer(path), processor, pixel_limits)


def load_teacher(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """Load a text-only causal model, frozen; raises ModelError when ``path`` holds none."""
    config = _checked_config(path)
    if config.model_type in STUDENT_TYPES:
        raise ModelError(f"{path}: a teacher is a text-only causal model, but this is a {config.model_type} checkpoint")
    try:
        model = _load(AutoModelForCausalLM, path, dtype, device)
    except ValueError as error:
        raise ModelError(f"{path}: not a causal language model ({error})") from error
    return LanguageModel(path, model.requires_grad_(False), _tokenizer(path))
