"""Checks that vLLM, if it samples, can run this student with these lengths and processes."""

from vold.config import RLConfig
from vold.findings import Finding, error
from vold.models.checkpoint import Checkpoint
from vold.preflight.job import Job
from vold.preflight.sizes import Sizes

# Sizes for which the CPU build of vLLM has attention kernels. On GPUs flash-attention takes multiples of 8 up to 256.
_CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128)
_GPU_HEAD_LIMIT = 256


def engine_findings(job: Job, student: Checkpoint, sizes: Sizes, prompt: int) -> list[Finding]:
    """All checks of the engine. The built-in one runs every model that the trainer runs.

    prompt: tokens of the longest prompt.
    """
    if not isinstance(job.config, RLConfig) or job.config.rollout != "vllm":
        return []
    findings, vllm = _head_findings(job, student), job.execution.vllm
    if job.execution.processes > 1 and not vllm.server:
        message = f"vLLM would join the process group of the {job.execution.processes} training processes"
        findings.append(
            error("engines.ranks", message, job.where("execution.vllm.server"), "set execution.vllm.server to true")
        )
    longest = prompt + job.config.max_new_tokens
    if vllm.max_length is not None and vllm.max_length < longest:
        message = f"vLLM takes {vllm.max_length} tokens, but prompt and completion need up to {longest}"
        fix = f"set execution.vllm.max_length to {longest} or more, or lower max_new_tokens"
        findings.append(error("engines.max_length", message, job.where("execution.vllm.max_length"), fix))
    return findings + _cache_findings(job, sizes, longest)


def _head_findings(job: Job, student: Checkpoint) -> list[Finding]:
    size = student.head_size
    cpu = job.device is not None and job.device.kind == "cpu"
    if size in _CPU_HEAD_SIZES if cpu else size % 8 == 0 and size <= _GPU_HEAD_LIMIT:
        return []
    supported = ", ".join(map(str, _CPU_HEAD_SIZES)) if cpu else f"multiples of 8 up to {_GPU_HEAD_LIMIT}"
    message = f"vLLM does not support attention heads of size {size} ({student.path / 'config.json'}), only {supported}"
    fix = "set rollout to builtin, or choose another student"
    return [error("engines.head_size", message, job.where("config.rollout"), fix)]


def _cache_findings(job: Job, sizes: Sizes, longest: int) -> list[Finding]:
    """Checks that vLLM's share of the GPU has room for its weights and one sequence."""
    vllm, device = job.execution.vllm, job.device
    if device is None or device.kind == "cpu" or vllm.kv_cache_gib is not None:
        return []
    element = 2 if job.execution.dtype == "bfloat16" else 4
    share, needed = vllm.memory_share * device.memory, sizes.total * element + longest * sizes.cache_bytes(element)
    if needed <= share:
        return []
    message = (
        f"vLLM's share ({vllm.memory_share:g}) of {device} is {share / 1e9:.1f} GB, "
        f"but weights and one sequence of {longest} tokens take {needed / 1e9:.1f} GB"
    )
    fix = f"set execution.vllm.memory_share above {needed / device.memory:.2f}, or choose a larger GPU"
    return [error("engines.no_cache", message, job.where("execution.vllm.memory_share"), fix)]
