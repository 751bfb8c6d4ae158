"""The least time that a step of RL can take on a device: its FLOPs and bytes from the models' shapes.

What is counted is what cannot be left out: matrix products of the language models and the reading of weights and
keys. A prompt is computed once for its group, heads work on completion tokens alone, and nothing is computed twice.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Device:
    """Peaks as published or measured: dense FLOPs a second, bytes a second of memory; ``width``: bytes of a number.

    ``gpu``: what torch calls it. The same chip on another board (PCIe, NVL, GH200) has other peaks.
    """

    name: str
    flops: float
    bandwidth: float
    source: str
    width: int = 2
    gpu: str = ""


DEVICES = (
    Device(
        "H200",
        989e12,
        4.8e12,
        "NVIDIA H200 Tensor Core GPU data sheet: SXM, bfloat16 without sparsity",
        gpu="NVIDIA H200",
    ),
    Device(
        "H100",
        989e12,
        3.35e12,
        "NVIDIA H100 Tensor Core GPU data sheet: SXM, bfloat16 without sparsity",
        gpu="NVIDIA H100 80GB HBM3",
    ),
    Device(
        "A100",
        312e12,
        2.039e12,
        "NVIDIA A100 Tensor Core GPU data sheet: SXM 80 GB, bfloat16 without sparsity",
        gpu="NVIDIA A100-SXM4-80GB",
    ),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's sizes, as its config names them."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """From the config of a causal model of transformers, or of the language part of one with vision."""
        text = config.get_text_config()
        return cls(
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            key_heads=text.num_key_value_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            vocabulary=text.vocab_size,
        )

    @property
    def body(self) -> int:
        """Weights of all layers' matrices."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights of the output head."""
        return self.hidden * self.vocabulary

    @property
    def token_flops(self) -> int:
        """Forward FLOPs of one token, head included and attention over other tokens not."""
        return 2 * (self.body + self.head)

    @property
    def kept(self) -> int:
        """Numbers in the cache for one token: its keys and values."""
        return 2 * self.layers * self.key_heads * self.head_dim

    def attention_flops(self, seen: int) -> int:
        """Scores and weighted values of queries that see ``seen`` keys in all: two products in each layer."""
        return 4 * self.layers * self.heads * self.head_dim * seen


@dataclass(frozen=True, slots=True)
class Work:
    """One step: ``prompts`` prompts of ``prompt`` tokens, ``group`` completions of ``completion`` tokens for each."""

    prompts: int = 128
    group: int = 8
    prompt: int = 256
    completion: int = 2048

    @property
    def sequences(self) -> int:
        return self.prompts * self.group

    @property
    def tokens(self) -> int:
        """Tokens of a packed batch: prompts once, completions whole."""
        return self.prompts * self.prompt + self.completions

    @property
    def completions(self) -> int:
        return self.sequences * self.completion

    @property
    def seen(self) -> int:
        """Pairs of a token and one that it sees, itself included."""
        prompt = self.prompt * (self.prompt + 1) // 2
        completion = self.completion * self.prompt + self.completion * (self.completion + 1) // 2
        return self.prompts * prompt + self.sequences * completion


def body_flops(shape: Shape, work: Work) -> int:
    """One forward pass over the packed batch, up to the final hidden states."""
    return 2 * shape.body * work.tokens + shape.attention_flops(work.seen)


def head_flops(shape: Shape, work: Work) -> int:
    """Logits of every completion token."""
    return 2 * shape.head * work.completions


def train_seconds(student: Shape, teacher: Shape, work: Work, device: Device) -> float:
    """Forward and backward of the student (three times the forward), and the teacher's head beside its own."""
    learned = 3 * (body_flops(student, work) + head_flops(student, work))
    return (learned + head_flops(teacher, work)) / device.flops


def teacher_seconds(teacher: Shape, work: Work, device: Device) -> float:
    """The teacher's hidden states; its head belongs to ``train_seconds``, where it is applied."""
    return body_flops(teacher, work) / device.flops


def decode_seconds(student: Shape, work: Work, device: Device, batch: int | None = None) -> float:
    """Prefill of the prompts, then one token of every sequence at a time; ``batch`` sequences together (None: all).

    A position's matrix products and its attention come one after the other, and each is as slow as its FLOPs or its
    bytes make it: weights are read once a position, a prompt's keys once for its group.
    """
    rows = min(batch or work.sequences, work.sequences)
    weights = student.body + student.head
    products = max(2 * weights * rows / device.flops, weights * device.width / device.bandwidth)
    seconds = 0.0
    for position in range(work.completion):
        compute = rows * student.attention_flops(work.prompt + position + 1) / device.flops
        kept = (position + 1) * rows + work.prompt * max(rows / work.group, 1)
        seconds += products + max(compute, kept * student.kept * device.width / device.bandwidth)
    prefill = body_flops(student, replace(work, completion=0)) / device.flops
    return prefill + seconds * work.sequences / rows
