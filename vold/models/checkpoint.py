"""Reads and checks the files of a checkpoint directory, without loading weights.

The checks use the headers of the weight files and the config.
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vold.files import JsonObject
from vold.findings import Finding, error, note

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Tokenizer = Any
"""A tokenizer of transformers, whose methods return unions of all that they could return for other arguments."""
Role = Literal["student", "teacher"]

STUDENT_TYPES = ("qwen2_5_vl",)
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint except its weights.

    generation: generation_config.json, empty if there is none.
    processor: preprocessor_config.json, empty if there is none.
    """

    role: Role
    path: Path
    config: "PreTrainedConfig"
    tokenizer: Tokenizer = None
    generation: JsonObject = field(default_factory=dict)
    processor: JsonObject = field(default_factory=dict)

    @classmethod
    def at(cls, role: Role, path: Path, config: "PreTrainedConfig", tokenizer: Tokenizer) -> "Checkpoint":
        """A checkpoint with the given config and tokenizer and the other settings in ``path``."""
        generation, processor = _json(path / "generation_config.json"), _json(path / "preprocessor_config.json")
        return cls(role, path, config, tokenizer, generation, processor)

    @cached_property
    def text(self) -> "PreTrainedConfig":
        """The config of the language model."""
        return self.config.get_text_config()

    @property
    def rows(self) -> int:
        """Rows of the output embedding, with padding."""
        return self.text.vocab_size

    @property
    def context(self) -> int | None:
        """Longest sequence that the model was built for, in tokens."""
        return getattr(self.text, "max_position_embeddings", None)

    @property
    def head_size(self) -> int:
        return getattr(self.text, "head_dim", None) or self.text.hidden_size // self.text.num_attention_heads


def read_checkpoint(role: Role, path: Path, weights: bool = True) -> tuple[Checkpoint | None, list[Finding]]:
    """The checkpoint in ``path``, and the faults of its files. None if it has no usable config.

    weights: whether to check the weight files too.
    """
    findings = directory_findings(path)
    if findings:
        return None, findings
    config, findings = read_config(path)
    if config is None:
        return None, findings
    findings = role_findings(role, path, config) + (weight_findings(path, config) if weights else [])
    tokenizer, tokenizer_findings = _read_tokenizer(path)
    checkpoint = Checkpoint.at(role, path, config, tokenizer)
    return checkpoint, findings + tokenizer_findings + shape_findings(checkpoint)


def _read_tokenizer(path: Path) -> tuple[Tokenizer | None, list[Finding]]:
    from transformers import AutoTokenizer

    reason = "none of " + ", ".join(_TOKENIZER_FILES)
    # Without any of these files transformers would make an empty tokenizer.
    if any((path / name).is_file() for name in _TOKENIZER_FILES):
        try:
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False), []
        except Exception as exception:  # damaged files may make the libraries raise anything
            reason = _short(exception)
    fix = "copy tokenizer.json and tokenizer_config.json of the source checkpoint there"
    return None, [error("checkpoints.no_tokenizer", f"the tokenizer cannot be read ({reason})", path, fix)]


def directory_findings(path: Path) -> list[Finding]:
    """Checks that ``path`` is a directory with a config."""
    if not path.is_dir():
        fix = "give a directory in Hugging Face format; a model of the hub (hub:) is downloaded once, over the network"
        return [error("checkpoints.missing", "no such checkpoint directory", path, fix)]
    if not (path / "config.json").is_file():
        return [
            error("checkpoints.no_config", "there is no config.json", path, "give a directory in Hugging Face format")
        ]
    return []


def read_config(path: Path) -> tuple["PreTrainedConfig | None", list[Finding]]:
    """The config as transformers reads it, or why it cannot be read. Code in the checkpoint is not run."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False), []
    except Exception as exception:  # the file may be hostile: any error of the library is a finding
        fix = "repair the file, or use an architecture that transformers itself supports"
        return None, [error("checkpoints.config", _short(exception), path / "config.json", fix)]


def role_findings(role: Role, path: Path, config: "PreTrainedConfig") -> list[Finding]:
    """Checks that the model is of the kind that its role needs."""
    vision = config.model_type in STUDENT_TYPES
    where = path / "config.json"
    if role == "teacher":
        if vision:
            message = f"a teacher is a text-only causal model, but this is a {config.model_type} checkpoint"
            fix = "set `teacher` to a text-only model"
            return [error("checkpoints.teacher_reads_images", message, where, fix)]
        return []
    findings = []
    if not vision:
        message = (
            f"the student must be a vision-language model ({', '.join(STUDENT_TYPES)}), "
            f"but config.json says model_type {config.model_type!r}"
        )
        fix = "set `student` to a vision-language model"
        findings.append(error("checkpoints.student_reads_text_only", message, where, fix))
    elif not (path / "preprocessor_config.json").is_file():
        message = "there is no preprocessor_config.json, which a student needs for its images"
        fix = "copy the file from the source checkpoint"
        findings.append(error("checkpoints.no_processor", message, path, fix))
    return findings


def weight_findings(path: Path, config: "PreTrainedConfig | None" = None) -> list[Finding]:
    """Checks by their headers that all weight files exist and are complete.

    Format: 8 bytes little-endian length, JSON of that length, data (github.com/huggingface/safetensors).
    """
    shards = {file.name for file in path.glob("*.safetensors")}
    listed = set((_json(path / "model.safetensors.index.json").get("weight_map") or {}).values())
    if not shards and not listed:
        message = "there are no *.safetensors files, and other weight formats are not supported"
        return [error("checkpoints.no_weights", message, path, "download the weights, or convert the checkpoint first")]
    findings = []
    if absent := sorted(listed - shards):
        message = f"{len(absent)} of {len(listed)} weight files are missing ({', '.join(absent[:3])})"
        findings.append(error("checkpoints.shard_missing", message, path, "download the checkpoint again"))
    for name in sorted(shards):
        header, fault = _header(path / name)
        if fault:
            fix = "download or copy the file again"
            findings.append(error("checkpoints.weights_damaged", fault, path / name, fix))
        elif config is not None:
            findings += _embedding_findings(path / name, header, config)
    return findings


def _header(path: Path) -> tuple[JsonObject, str]:
    """The tensors of a safetensors file, and its fault, if it has one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _HEADER_LIMIT):
            return {}, f"the file is truncated: {size} bytes do not hold a safetensors header"
        try:
            header = json.loads(file.read(length))
            tensors = {name: value for name, value in header.items() if name != "__metadata__"}
            end = 8 + length + max((value["data_offsets"][1] for value in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return {}, "the file is not a safetensors file, as its header cannot be read"
    if size != end:
        return {}, f"the file is {'truncated' if size < end else 'too long'}: {size} bytes, but {end} by its header"
    return tensors, ""


def _embedding_findings(file: Path, header: JsonObject, config: "PreTrainedConfig") -> list[Finding]:
    text = config.get_text_config()
    expected = [text.vocab_size, text.hidden_size]
    for name, value in header.items():
        shape = value.get("shape")
        if name.endswith("embed_tokens.weight") and shape != expected:
            message = f"{name} is {shape}, but config.json says {expected} (vocabulary x hidden)"
            fix = "take config and weights from one source"
            return [error("checkpoints.weights_of_another_model", message, file, fix)]
    return []


def shape_findings(checkpoint: Checkpoint) -> list[Finding]:
    """Checks that the trainer's own attention and positions support the config."""
    findings, where = layer_findings(checkpoint.path, checkpoint.text), checkpoint.path / "config.json"
    section = (getattr(checkpoint.text, "rope_parameters", None) or {}).get("mrope_section")
    half = checkpoint.head_size // 2
    if checkpoint.role == "student" and section and sum(section) != half:
        message = f"mrope_section {section} sums to {sum(section)}, but half a head is {half}"
        fix = f"make the three sections (time, height, width) sum to head_dim / 2 = {half}"
        findings.append(error("checkpoints.mrope", message, where, fix))
    if _json(where).get("auto_map"):
        message = "config.json names code of its own (auto_map), which is never run"
        fix = "change nothing: the class of transformers is used"
        findings.append(note("checkpoints.own_code", message, where, fix))
    return findings


def layer_findings(path: Path, text_config: "PreTrainedConfig") -> list[Finding]:
    """Checks that all layers have full attention, the only kind that the trainer computes."""
    kinds = sorted(set(getattr(text_config, "layer_types", None) or ()) - {"full_attention"})
    if not kinds:
        return []
    message = f"layers with sliding-window or linear attention are not supported ({', '.join(kinds)})"
    fix = "use a model whose layer_types are all full_attention"
    return [error("checkpoints.layers", message, path / "config.json", fix)]


def _json(path: Path) -> JsonObject:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(exception: BaseException) -> str:
    lines = str(exception).strip().splitlines()
    return lines[0][:300] if lines else type(exception).__name__
