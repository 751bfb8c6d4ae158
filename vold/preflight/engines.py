"""Can the engine that samples run this student, with these lengths and processes?"""

from vold.config import RLConfig
from vold.findings import Finding, error
from vold.models.checkpoint import Checkpoint
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

# What the CPU build of vLLM has attention kernels for; on GPUs flash-attention takes any multiple of 8 up to 256.
_CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128)
_GPU_HEAD_LIMIT = 256


def engine_findings(job: Job, student: Checkpoint, sizes: Sizes, prompt: int) -> list[Finding]:
    """All checks of this theme; the builtin engine runs whatever the trainer runs. ``prompt``: the longest's tokens."""
    if not isinstance(job.config, RLConfig) or job.config.rollout != "vllm":
        return []
    findings, vllm = _head_findings(job, student), job.execution.vllm
    if job.execution.processes > 1 and not vllm.server:
        message = f"vLLM in the process of one of {job.execution.processes} ranks would join their process group"
        findings.append(error("engines.ranks", message, job.where("execution.vllm.server"), "set vllm.server to true"))
    longest = prompt + job.config.max_new_tokens
    if vllm.max_length is not None and vllm.max_length < longest:
        message = f"vLLM takes {vllm.max_length} tokens, prompt and completion need up to {longest}"
        fix = f"set vllm.max_length to {longest} or more, or lower max_new_tokens"
        findings.append(error("engines.max_length", message, job.where("execution.vllm.max_length"), fix))
    return findings + _cache_findings(job, sizes, longest)


def _head_findings(job: Job, student: Checkpoint) -> list[Finding]:
    size = student.head_size
    cpu = job.device is not None and job.device.kind == "cpu"
    if size in _CPU_HEAD_SIZES if cpu else size % 8 == 0 and size <= _GPU_HEAD_LIMIT:
        return []
    known = ", ".join(map(str, _CPU_HEAD_SIZES)) if cpu else f"multiples of 8 up to {_GPU_HEAD_LIMIT}"
    message = f"vLLM has no attention for heads of {size} ({student.path / 'config.json'}); it knows {known}"
    fix = "set rollout to builtin, or choose another student"
    return [error("engines.head_size", message, job.where("config.rollout"), fix)]


def _cache_findings(job: Job, sizes: Sizes, longest: int) -> list[Finding]:
    """Is there room in vLLM's share of the GPU for its weights and one sequence?"""
    vllm, device = job.execution.vllm, job.device
    if device is None or device.kind == "cpu" or vllm.kv_cache_gib is not None:
        return []
    element = 2 if job.execution.dtype == "bfloat16" else 4
    share, needed = vllm.memory_share * device.memory, sizes.total * element + longest * sizes.cache_bytes(element)
    if needed <= share:
        return []
    message = (
        f"vLLM's {vllm.memory_share:g} of {device} is {share / 1e9:.1f} GB, "
        f"weights and one sequence of {longest} tokens take {needed / 1e9:.1f}"
    )
    fix = f"set vllm.memory_share above {needed / device.memory:.2f}, or choose a larger GPU"
    return [error("engines.no_cache", message, job.where("execution.vllm.memory_share"), fix)]
