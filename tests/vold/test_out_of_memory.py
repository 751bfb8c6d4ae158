"""Lack of memory is distinguished from other failures."""

import errno

import pytest

from vold.out_of_memory import is_out_of_memory, mentions_out_of_memory
from vold.rollout.base import EngineError


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's own error."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("x"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (EngineError("vLLM failed while generating: OutOfMemoryError: CUDA out of memory."), True),
        (EngineError("vLLM failed while generating: IndexError: out of range"), False),
        (ValueError("the 3rd record says 'CUDA out of memory'"), False),
        (KeyError("x"), False),
    ],
)
def test_errors_that_mean_lack_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ERROR [core.py:866] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.", True),
        ("Out of memory: Killed process 4242 (python) total-vm:9000000kB", True),
        ("WARNING: the cache is large (9.00 GiB). This may cause out-of-memory errors.", False),
        ("INFO: gpu_memory_utilization=0.9, memory for the KV cache: 3.1 GiB", False),
    ],
)
def test_log_lines_that_mean_lack_of_memory(line: str, expected: bool) -> None:
    assert mentions_out_of_memory(line) is expected
