"""Lower bounds of the time of an RL step on a device, from the FLOPs and bytes of the models' shapes.

The bounds count only necessary work: the matrix products of the language models, and reading weights and keys. A
prompt is computed once for its group, heads see completion tokens only, and nothing is computed twice.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class DevicePeaks:
    """The published or measured peaks of a device.

    flops: dense FLOPs per second.
    bandwidth: bytes of memory per second.
    source: where the peaks come from.
    width: bytes per number.
    gpu: torch's name of the GPU. The same chip on another board (PCIe, NVL, GH200) has other peaks.
    """

    name: str
    flops: float
    bandwidth: float
    source: str
    width: int = 2
    gpu: str = ""


DEVICES = (
    DevicePeaks(
        "H200",
        989e12,
        4.8e12,
        "NVIDIA H200 Tensor Core GPU data sheet: SXM, bfloat16 without sparsity",
        gpu="NVIDIA H200",
    ),
    DevicePeaks(
        "H100",
        989e12,
        3.35e12,
        "NVIDIA H100 Tensor Core GPU data sheet: SXM, bfloat16 without sparsity",
        gpu="NVIDIA H100 80GB HBM3",
    ),
    DevicePeaks(
        "A100",
        312e12,
        2.039e12,
        "NVIDIA A100 Tensor Core GPU data sheet: SXM 80 GB, bfloat16 without sparsity",
        gpu="NVIDIA A100-SXM4-80GB",
    ),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder, under the names of its config."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """The shape of a causal model of transformers; of a vision-language model, that of its language part."""
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
        """Number of weights in the matrices of all layers."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Number of weights in the output head."""
        return self.hidden * self.vocabulary

    @property
    def token_flops(self) -> int:
        """Forward FLOPs of one token with the head, without attention over other tokens."""
        return 2 * (self.body + self.head)

    @property
    def cache_numbers(self) -> int:
        """Numbers in the KV cache per token: its keys and values."""
        return 2 * self.layers * self.key_heads * self.head_dim

    def attention_flops(self, attended: int) -> int:
        """FLOPs of attention over ``attended`` pairs of query and key: two products per layer, scores and values."""
        return 4 * self.layers * self.heads * self.head_dim * attended


@dataclass(frozen=True, slots=True)
class StepSize:
    """The size of a step: ``prompts`` of ``prompt`` tokens, with ``group`` completions of ``completion`` tokens."""

    prompts: int = 128
    group: int = 8
    prompt: int = 256
    completion: int = 2048

    @property
    def sequences(self) -> int:
        return self.prompts * self.group

    @property
    def tokens(self) -> int:
        """Tokens of a packed batch, which has every prompt once."""
        return self.prompts * self.prompt + self.completions

    @property
    def completions(self) -> int:
        return self.sequences * self.completion

    @property
    def attended(self) -> int:
        """Number of pairs of a token and a token that it attends to, itself included."""
        prompt = self.prompt * (self.prompt + 1) // 2
        completion = self.completion * self.prompt + self.completion * (self.completion + 1) // 2
        return self.prompts * prompt + self.sequences * completion


def body_flops(shape: Shape, size: StepSize) -> int:
    """FLOPs of a forward pass over the packed batch, up to the final hidden states."""
    return 2 * shape.body * size.tokens + shape.attention_flops(size.attended)


def head_flops(shape: Shape, size: StepSize) -> int:
    """FLOPs of the logits of every completion token."""
    return 2 * shape.head * size.completions


def train_seconds(student: Shape, teacher: Shape, size: StepSize, device: DevicePeaks) -> float:
    """Least seconds of training: three times the student's forward pass, and the teacher's head."""
    learned = 3 * (body_flops(student, size) + head_flops(student, size))
    return (learned + head_flops(teacher, size)) / device.flops


def teacher_seconds(teacher: Shape, size: StepSize, device: DevicePeaks) -> float:
    """Least seconds of the teacher's hidden states. Its head is applied in training, so ``train_seconds`` counts it."""
    return body_flops(teacher, size) / device.flops


def decode_seconds(student: Shape, size: StepSize, device: DevicePeaks, batch: int | None = None) -> float:
    """Least seconds of the rollout: prefill of the prompts, then one token of every sequence at a time.

    Matrix products and attention of a position run one after the other. Each takes the longer of the times for its
    FLOPs and for its bytes. Weights are read once per position, and the keys of a prompt once for its group.

    batch: sequences that are decoded together; None means all.
    """
    rows = min(batch or size.sequences, size.sequences)
    weights = student.body + student.head
    products = max(2 * weights * rows / device.flops, weights * device.width / device.bandwidth)
    seconds = 0.0
    for position in range(size.completion):
        compute = rows * student.attention_flops(size.prompt + position + 1) / device.flops
        cached = (position + 1) * rows + size.prompt * max(rows / size.group, 1)
        seconds += products + max(compute, cached * student.cache_numbers * device.width / device.bandwidth)
    prefill = body_flops(student, replace(size, completion=0)) / device.flops
    return prefill + seconds * size.sequences / rows
