"""Estimates the peak memory of a run on one device, part by part.

Bytes per parameter are those of mixed-precision AdamW as in ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section
3.1). The estimate assumes the worst case, in which every completion is as long as allowed.
"""

from dataclasses import dataclass
from typing import Literal

from vold.config import RLConfig
from vold.execution import Execution
from vold.findings import Finding, error, note, warning
from vold.objectives.fused import CHUNK_ELEMENTS
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

Moment = Literal["always", "rollout", "teacher", "train"]
_FP32 = 4
# Three arrays at a time, a fourth for a divergence that needs its own, and one for the cast to half precision.
_CHUNK_ARRAYS = 5
# Above this share allocators fragment, and the buffers of libraries no longer fit.
_COMFORTABLE = 0.9


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes on one device, in use always or only at one moment of a step."""

    name: str
    bytes: int
    moment: Moment = "always"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The parts, and their sum at the moment of a step that needs the most."""

    parts: tuple[MemoryPart, ...]

    @property
    def counted(self) -> list[MemoryPart]:
        """The parts in use at the peak, the largest first."""
        return sorted((p for p in self.parts if p.moment in ("always", self.moment)), key=lambda part: -part.bytes)

    @property
    def peak(self) -> int:
        return sum(part.bytes for part in self.counted)

    @property
    def moment(self) -> Moment:
        """The moment of the peak."""
        sums: dict[Moment, int] = {part.moment: 0 for part in self.parts}
        for part in self.parts:
            sums[part.moment] += part.bytes
        sums.pop("always", None)
        widest: list[Moment] = sorted(sums, key=sums.__getitem__, reverse=True)
        return widest[0] if widest else "always"


def estimate_memory(job: Job, student: Sizes, teacher: Sizes | None, prompt: int) -> MemoryEstimate:
    """Memory of one device. prompt: tokens of the longest prompt."""
    execution = job.execution
    parts = state_parts(student, execution)
    if teacher is not None:
        parts.append(MemoryPart("teacher's weights", teacher.total * _element(execution)))
    if isinstance(job.config, RLConfig):
        parts += _rollout_parts(job, job.config, student, teacher, prompt)
        longest = prompt + job.config.max_new_tokens
    else:
        longest = job.config.max_length
    parts += _train_parts(execution, student, longest)
    if job.config.lora is None and "embeddings" not in job.config.freeze:
        # The gradient of a micro-batch, computed in its forward pass, exists next to the sum of those before it.
        parts.append(MemoryPart("output head's gradient of one pass", student.rows * student.hidden * _FP32, "train"))
    return MemoryEstimate(tuple(parts))


def state_parts(student: Sizes, execution: Execution) -> list[MemoryPart]:
    """Weights in fp32 (4 bytes), their gradients (4), AdamW's two moments (8), and autocast's bf16 copies (2).

    ZeRO's stage 2 splits gradients and moments over the processes. Stage 3 splits the weights too, and gathers them for
    rollouts. With offload, the split parts are in CPU memory (in stage 2 only the moments).
    """
    strategy, offload = execution.parallel.strategy, execution.parallel.offload
    share = {"none": 1, "zero2": execution.processes, "zero3": execution.processes}[strategy]
    shards = execution.processes if strategy == "zero3" else 1
    parts = [
        MemoryPart("student's weights", 0 if shards > 1 and offload else _cut(student.total * _FP32, shards)),
        MemoryPart("gradients", 0 if shards > 1 and offload else _cut(student.trained * _FP32, share)),
        MemoryPart(
            "AdamW's moments", 0 if offload and strategy != "none" else _cut(2 * student.trained * _FP32, share)
        ),
    ]
    if strategy == "zero3":
        parts.append(MemoryPart("weights gathered for rollouts", student.total * _FP32, "rollout"))
    if execution.dtype == "bfloat16":
        parts.append(MemoryPart("bf16 copies of the weights", _cut(2 * student.total, shards)))
    return parts


def _rollout_parts(job: Job, config: RLConfig, student: Sizes, teacher: Sizes | None, prompt: int) -> list[MemoryPart]:
    """Parts for sampling, and for the teacher. Each process answers its share of the prompts."""
    execution = job.execution
    element, longest = _element(execution), prompt + config.max_new_tokens
    answered = _cut(config.prompts_per_step, execution.processes) * config.group_size
    rows = min(execution.rollout_batch, answered)
    cache = rows * longest * student.cache_bytes(element)
    if config.rollout == "vllm":
        parts = [MemoryPart("vLLM while awake", _vllm_bytes(job, student, cache), "rollout")]
    else:
        parts = [MemoryPart(f"KV cache of {rows} rollouts of {longest} tokens", cache, "rollout")]
    if teacher is not None:
        states = answered * config.max_new_tokens * teacher.hidden * element
        # A frozen layer keeps nothing, but while it runs it needs about as much as a trained layer saves.
        one_layer = _tokens_in_pass(execution, longest) * teacher.saved_bytes(element)
        parts.append(MemoryPart("teacher's hidden states", states))
        parts.append(MemoryPart("one layer of the teacher", one_layer, "teacher"))
    return parts


def _vllm_bytes(job: Job, student: Sizes, cache: int) -> int:
    """vLLM's share of the device, or its weights and KV cache (``cache``, unless ``kv_cache_gib`` is set)."""
    vllm, on_gpu = job.execution.vllm, job.device is not None and job.device.kind == "cuda"
    if job.device is not None and on_gpu and vllm.kv_cache_gib is None:
        return int(vllm.memory_share * job.device.memory)
    cache_bytes = cache if vllm.kv_cache_gib is None else int(vllm.kv_cache_gib * (1 << 30))
    return student.total * _element(job.execution) + cache_bytes


def _cut(amount: int, share: int) -> int:
    """The part of one process, rounded up."""
    return -(-amount // share)


def _train_parts(execution: Execution, student: Sizes, longest: int) -> list[MemoryPart]:
    tokens, element = _tokens_in_pass(execution, longest), _element(execution)
    chunk = min(CHUNK_ELEMENTS, tokens * student.rows)
    # Final hidden states and their gradient, kept while the head is applied chunk by chunk.
    head = 2 * tokens * student.hidden * _FP32 + _CHUNK_ARRAYS * chunk * _FP32
    if execution.gradient_checkpointing:
        # The residual stream, which enters every layer, is fp32 under autocast too.
        saved = tokens * (student.layers * student.hidden * _FP32 + student.saved_bytes(element))
        saved_arrays = f"inputs of {student.layers} layers and one of them"
    else:
        saved = student.layers * tokens * student.saved_bytes(element)
        saved_arrays = f"{student.layers} layers"
    return [
        MemoryPart(f"activations of {tokens} tokens, {saved_arrays}", saved, "train"),
        MemoryPart("output head, one chunk", head, "train"),
    ]


def memory_findings(job: Job, estimated: MemoryEstimate) -> list[Finding]:
    """Compares the estimate with the memory of the device."""
    shares = ", ".join(f"{part.name} {part.bytes / 1e9:.1f}" for part in estimated.counted[:3])
    message = f"the run needs about {estimated.peak / 1e9:.1f} GB at its peak (largest parts in GB: {shares})"
    if job.device is None:
        fix = "name the GPU to compare with, such as --gpu 'H100 x 1'"
        return [note("memory.estimate", message, job.where("execution"), fix)]
    where, share = job.where("execution"), estimated.peak / job.device.memory
    if share <= _COMFORTABLE:
        return []
    message += f", but {job.device} has {job.device.memory / 1e9:.1f} GB"
    fix = _memory_fix(job.execution, estimated)
    if share > 1:
        return [error("memory.too_large", message, where, fix)]
    return [warning("memory.tight", message, where, fix)]


def _memory_fix(execution: Execution, estimated: MemoryEstimate) -> str:
    """The setting to change first, by the largest part at the peak."""
    largest = estimated.counted[0]
    if largest.moment == "rollout":
        return "lower execution.rollout_batch or max_new_tokens"
    if largest.moment == "train" and not execution.gradient_checkpointing:
        return "set execution.gradient_checkpointing to true, or lower execution.micro_batch_tokens"
    if largest.moment in ("train", "teacher"):
        return "lower execution.micro_batch_tokens or the longest sequence"
    if largest.name.startswith("teacher's hidden"):
        return "lower prompts_per_step or max_new_tokens, or use more processes"
    if largest.name.startswith("teacher"):
        return "choose a smaller teacher, or set execution.dtype to bfloat16"
    return "freeze more parts, set lora, set execution.parallel.strategy to zero2 or zero3, or choose a larger GPU"


def _tokens_in_pass(execution: Execution, longest: int) -> int:
    """Tokens of the largest forward pass. A sequence over the budget is a batch of its own."""
    return max(execution.micro_batch_tokens, longest)


def _element(execution: Execution) -> int:
    return 2 if execution.dtype == "bfloat16" else _FP32
