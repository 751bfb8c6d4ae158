"""How much memory of one device a run takes, part by part, at its widest moment.

Bytes per parameter are those of mixed-precision AdamW as in ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section
3.1). The estimate assumes the worst case: every completion as long as allowed.
"""

from dataclasses import dataclass
from typing import Literal

from vold.config import Execution, RLConfig
from vold.findings import Finding, error, note, warning
from vold.objectives.fused import CHUNK_ELEMENTS
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

Moment = Literal["always", "rollout", "teacher", "train"]
_FP32 = 4
# Three arrays at a time, a fourth where a divergence makes one of its own, and what is cast to half precision.
_CHUNK_ARRAYS = 5
# Beyond this share allocators fragment and libraries' own buffers no longer fit.
_COMFORTABLE = 0.9


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Bytes of one device, held always or only at one moment of a step."""

    name: str
    bytes: int
    moment: Moment = "always"


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The parts, and the sum at the widest moment."""

    parts: tuple[MemoryPart, ...]

    @property
    def counted(self) -> list[MemoryPart]:
        """What is held at the widest moment, the largest first."""
        return sorted((p for p in self.parts if p.moment in ("always", self.moment)), key=lambda part: -part.bytes)

    @property
    def peak(self) -> int:
        return sum(part.bytes for part in self.counted)

    @property
    def moment(self) -> Moment:
        """When the peak is reached."""
        sums: dict[Moment, int] = {part.moment: 0 for part in self.parts}
        for part in self.parts:
            sums[part.moment] += part.bytes
        sums.pop("always", None)
        widest: list[Moment] = sorted(sums, key=sums.__getitem__, reverse=True)
        return widest[0] if widest else "always"


def estimate_memory(job: Job, student: Sizes, teacher: Sizes | None, prompt: int) -> MemoryEstimate:
    """Parts of one device; ``prompt`` is the longest prompt in tokens."""
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
        # A micro-batch's, made in the forward pass, lies beside the sum of those before it.
        parts.append(MemoryPart("output head's gradient of one pass", student.rows * student.hidden * _FP32, "train"))
    return MemoryEstimate(tuple(parts))


def state_parts(student: Sizes, execution: Execution) -> list[MemoryPart]:
    """Weights in fp32 (4 bytes), their gradients (4), AdamW's two moments (8), and autocast's bf16 copies (2).

    ZeRO's stage 2 cuts gradients and moments up over the processes, stage 3 the weights too, which are gathered again
    for rollouts; what is cut up may lie in CPU memory (stage 2: the moments).
    """
    strategy, offload = execution.parallel.strategy, execution.parallel.offload
    share = {"none": 1, "zero2": execution.processes, "zero3": execution.processes}[strategy]
    whole = execution.processes if strategy == "zero3" else 1
    parts = [
        MemoryPart("student's weights", 0 if whole > 1 and offload else _cut(student.total * _FP32, whole)),
        MemoryPart("gradients", 0 if whole > 1 and offload else _cut(student.trained * _FP32, share)),
        MemoryPart(
            "AdamW's moments", 0 if offload and strategy != "none" else _cut(2 * student.trained * _FP32, share)
        ),
    ]
    if strategy == "zero3":
        parts.append(MemoryPart("weights gathered for rollouts", student.total * _FP32, "rollout"))
    if execution.dtype == "bfloat16":
        parts.append(MemoryPart("bf16 copies of the weights", _cut(2 * student.total, whole)))
    return parts


def _rollout_parts(job: Job, config: RLConfig, student: Sizes, teacher: Sizes | None, prompt: int) -> list[MemoryPart]:
    """A process answers its share of the prompts."""
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
        # A frozen layer keeps nothing; what it computes on is about what a trained one would save.
        one_layer = _tokens_in_pass(execution, longest) * teacher.saved_bytes(element)
        parts.append(MemoryPart("teacher's hidden states", states))
        parts.append(MemoryPart("one layer of the teacher", one_layer, "teacher"))
    return parts


def _vllm_bytes(job: Job, student: Sizes, cache: int) -> int:
    """Its share of the device, or its weights and the cache that it is given (as much as is wanted, if nothing is)."""
    vllm, on_gpu = job.execution.vllm, job.device is not None and job.device.kind == "cuda"
    if job.device is not None and on_gpu and vllm.kv_cache_gib is None:
        return int(vllm.memory_share * job.device.memory)
    given = cache if vllm.kv_cache_gib is None else int(vllm.kv_cache_gib * (1 << 30))
    return student.total * _element(job.execution) + given


def _cut(amount: int, share: int) -> int:
    """One process's part, rounded up."""
    return -(-amount // share)


def _train_parts(execution: Execution, student: Sizes, longest: int) -> list[MemoryPart]:
    tokens, element = _tokens_in_pass(execution, longest), _element(execution)
    chunk = min(CHUNK_ELEMENTS, tokens * student.rows)
    # Final hidden states and their gradient, kept while the head is applied chunk by chunk.
    head = 2 * tokens * student.hidden * _FP32 + _CHUNK_ARRAYS * chunk * _FP32
    if execution.gradient_checkpointing:
        # The residual stream, which enters every layer, is fp32 under autocast too.
        saved = tokens * (student.layers * student.hidden * _FP32 + student.saved_bytes(element))
        kept = f"inputs of {student.layers} layers and one of them"
    else:
        saved = student.layers * tokens * student.saved_bytes(element)
        kept = f"{student.layers} layers"
    return [
        MemoryPart(f"activations of {tokens} tokens, {kept}", saved, "train"),
        MemoryPart("output head, one chunk", head, "train"),
    ]


def memory_findings(job: Job, estimated: MemoryEstimate) -> list[Finding]:
    """Does it fit the device?"""
    shares = ", ".join(f"{part.name} {part.bytes / 1e9:.1f}" for part in estimated.counted[:3])
    message = f"about {estimated.peak / 1e9:.1f} GB at its widest moment (GB: {shares})"
    if job.device is None:
        fix = "name the GPU with --gpu, such as --gpu 'H100 x 1', to have it compared"
        return [note("memory.estimate", message, job.where("execution"), fix)]
    where, share = job.where("execution"), estimated.peak / job.device.memory
    if share <= _COMFORTABLE:
        return []
    message += f"; {job.device} has {job.device.memory / 1e9:.1f} GB"
    fix = _memory_fix(job.execution, estimated)
    if share > 1:
        return [error("memory.too_large", message, where, fix)]
    return [warning("memory.tight", message, where, fix)]


def _memory_fix(execution: Execution, estimated: MemoryEstimate) -> str:
    """What to change first: by the widest moment's largest part."""
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
    return "freeze more or set lora, share the states (parallel.strategy zero2 or zero3), or choose a larger GPU"


def _tokens_in_pass(execution: Execution, longest: int) -> int:
    """Tokens of the largest forward pass: a sequence over the budget is a batch of its own."""
    return max(execution.micro_batch_tokens, longest)


def _element(execution: Execution) -> int:
    return 2 if execution.dtype == "bfloat16" else _FP32
