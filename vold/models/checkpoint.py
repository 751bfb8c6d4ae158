"""A checkpoint directory as files: are they there and whole, and can a model of this shape play its part?

Weights are never loaded: their headers are read, and the config says the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vold.findings import Finding, error, note

Role = Literal["student", "teacher"]

STUDENT_TYPES = ("qwen2_5_vl",)
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Checkpoint:
    """What can be read without weights. ``processor`` is preprocessor_config.json, empty where there is none."""

    role: Role
    path: Path
    config: Any
    tokenizer: Any = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, role: Role, path: Path, config: Any, tokenizer: Any) -> "Checkpoint":
        """With the settings that lie beside the config."""
        generation, processor = _json(path / "generation_config.json"), _json(path / "preprocessor_config.json")
        return cls(role, path, config, tokenizer, generation, processor)

    @cached_property
    def text(self) -> Any:
        """The config of the language model inside."""
        return self.config.get_text_config()

    @property
    def rows(self) -> int:
        """Rows of the output embedding, padded ones included."""
        return self.text.vocab_size

    @property
    def context(self) -> int | None:
        """Positions that the model was built for."""
        return getattr(self.text, "max_position_embeddings", None)

    @property
    def head_size(self) -> int:
        return getattr(self.text, "head_dim", None) or self.text.hidden_size // self.text.num_attention_heads


def read_checkpoint(role: Role, path: Path, weights: bool = True) -> tuple[Checkpoint | None, list[Finding]]:
    """Config, tokenizer and settings of ``path`` with what is wrong with its files; None without a usable config.

    ``weights`` False: not looked at.
    """
    findings = directory_findings(path)
    if findings:
        return None, findings
    config, findings = read_config(path)
    if config is None:
        return None, findings
    findings = role_findings(role, path, config) + (weight_findings(path, config) if weights else [])
    tokenizer, wrong = _read_tokenizer(path)
    findings += wrong
    checkpoint = Checkpoint.at(role, path, config, tokenizer)
    return checkpoint, findings + shape_findings(checkpoint)


def _read_tokenizer(path: Path) -> tuple[Any | None, list[Finding]]:
    from transformers import AutoTokenizer

    problem = "none of " + ", ".join(_TOKENIZER_FILES)
    # Without any of them transformers makes an empty tokenizer of the config's kind.
    if any((path / name).is_file() for name in _TOKENIZER_FILES):
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False), []
        except Exception as raised:  # whatever the files of a stranger make the libraries raise
            problem = _short(raised)
    fix = "copy tokenizer.json and tokenizer_config.json of the source checkpoint there"
    return None, [error("checkpoints.no_tokenizer", f"no tokenizer can be read ({problem})", path, fix)]


def directory_findings(path: Path) -> list[Finding]:
    """Is it a directory with a config?"""
    if not path.is_dir():
        fix = "give a directory in Hugging Face format; a model of the hub (hub:) needs a network once"
        return [error("checkpoints.missing", "no such checkpoint directory", path, fix)]
    if not (path / "config.json").is_file():
        return [error("checkpoints.no_config", "no config.json", path, "give a directory in Hugging Face format")]
    return []


def read_config(path: Path) -> tuple[Any | None, list[Finding]]:
    """The config as transformers reads it; code that comes with it is not run."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False), []
    except Exception as exception:  # hostile input: any library error is a finding
        fix = "repair the file, or use an architecture that transformers itself knows"
        return None, [error("checkpoints.config", _short(exception), path / "config.json", fix)]


def role_findings(role: Role, path: Path, config: Any) -> list[Finding]:
    """Is it the kind of model that its part needs?"""
    vision = config.model_type in STUDENT_TYPES
    where = path / "config.json"
    if role == "teacher":
        if vision:
            message = f"a teacher is a text-only causal model, but this is a {config.model_type} checkpoint"
            fix = "name a text-only model under `teacher`"
            return [error("checkpoints.teacher_reads_images", message, where, fix)]
        return []
    findings = []
    if not vision:
        message = (
            f"the student must be a vision-language model ({', '.join(STUDENT_TYPES)}), "
            f"but config.json says model_type {config.model_type!r}"
        )
        findings.append(
            error("checkpoints.student_reads_text_only", message, where, "name one of that kind under `student`")
        )
    elif not (path / "preprocessor_config.json").is_file():
        fix = "a student needs its image processor: copy the file from the source checkpoint"
        findings.append(error("checkpoints.no_processor", "no preprocessor_config.json", path, fix))
    return findings


def weight_findings(path: Path, config: Any | None = None) -> list[Finding]:
    """Are all weight files there and as long as their headers say?  Reads headers only.

    Format: 8 bytes little-endian length, JSON of that length, data (github.com/huggingface/safetensors).
    """
    shards = {file.name for file in path.glob("*.safetensors")}
    listed = set((_json(path / "model.safetensors.index.json").get("weight_map") or {}).values())
    if not shards and not listed:
        message = "no *.safetensors; other weight formats are not loaded"
        return [error("checkpoints.no_weights", message, path, "download the weights, or convert the checkpoint first")]
    findings = []
    if absent := sorted(listed - shards):
        message = f"{len(absent)} of {len(listed)} weight files are missing ({', '.join(absent[:3])})"
        findings.append(error("checkpoints.shard_missing", message, path, "download the checkpoint again"))
    for name in sorted(shards):
        header, problem = _header(path / name)
        if problem:
            fix = "download or copy the file again"
            findings.append(error("checkpoints.weights_damaged", problem, path / name, fix))
        elif config is not None:
            findings += _embedding_findings(path / name, header, config)
    return findings


def _header(path: Path) -> tuple[dict[str, Any], str]:
    """Tensors of a safetensors file, or what is wrong with it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            return {}, f"truncated: {size} bytes do not hold a safetensors header"
        try:
            header = json.loads(file.read(length))
            tensors = {name: value for name, value in header.items() if name != "__metadata__"}
            end = 8 + length + max((value["data_offsets"][1] for value in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return {}, "not a safetensors file: its header is unreadable"
    if size != end:
        return {}, f"{'truncated' if size < end else 'too long'}: {size} bytes where the header promises {end}"
    return tensors, ""


def _embedding_findings(file: Path, header: Mapping[str, Any], config: Any) -> list[Finding]:
    text = config.get_text_config()
    expected = [text.vocab_size, text.hidden_size]
    for name, value in header.items():
        shape = value.get("shape")
        if name.endswith("embed_tokens.weight") and shape != expected:
            message = f"{name} is {shape}, config.json says {expected} (vocabulary x hidden)"
            fix = "config and weights are of different models: take both from one source"
            return [error("checkpoints.weights_of_another_model", message, file, fix)]
    return []


def shape_findings(checkpoint: Checkpoint) -> list[Finding]:
    """What the trainer's own attention and positions need of a config."""
    findings, where = layer_findings(checkpoint.path, checkpoint.text), checkpoint.path / "config.json"
    section = (getattr(checkpoint.text, "rope_parameters", None) or {}).get("mrope_section")
    half = checkpoint.head_size // 2
    if checkpoint.role == "student" and section and sum(section) != half:
        message = f"mrope_section {section} sums to {sum(section)}, half a head is {half}"
        fix = f"make the three sections (time, height, width) sum to head_dim / 2 = {half}"
        findings.append(error("checkpoints.mrope", message, where, fix))
    if (_json(where)).get("auto_map"):
        message = "config.json names code of its own (auto_map); it is never run"
        findings.append(note("checkpoints.own_code", message, where, "nothing to do: transformers' own class is used"))
    return findings


def layer_findings(path: Path, text_config: Any) -> list[Finding]:
    """Kinds of layers that the trainer's attention is wrong for."""
    kinds = sorted(set(getattr(text_config, "layer_types", None) or ()) - {"full_attention"})
    if not kinds:
        return []
    message = f"layers with sliding-window or linear attention are not supported ({', '.join(kinds)})"
    fix = "use a model whose layer_types are all full_attention"
    return [error("checkpoints.layers", message, path / "config.json", fix)]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(exception: BaseException) -> str:
    lines = str(exception).strip().splitlines()
    return lines[0][:300] if lines else type(exception).__name__
