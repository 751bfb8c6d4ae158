"""Recognizes that the memory of the machine or a GPU ran out, by the type of an error or by the text of a message."""

import re
from pathlib import Path

# Messages of torch on GPUs, of CUDA, of torch on CPUs, of the C library, of Python, and of Linux.
_MESSAGES = re.compile(
    r"OutOfMemoryError|(?:CUDA|HIP|error:) out of memory|can't allocate memory|Cannot allocate memory|\bMemoryError\b"
    r"|Out of memory: "
)
_COUNTERS = Path("/proc/vmstat")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out. Torch's own error is recognised by name, without importing torch."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError | OSError) and mentions_out_of_memory(str(error))


def mentions_out_of_memory(text: str) -> bool:
    """Whether a message or a line of a log says that memory ran out."""
    return _MESSAGES.search(text) is not None


def kernel_kills() -> int:
    """Number of processes that the kernel has killed since boot because memory ran out. 0 if it does not count them."""
    try:
        counters = dict(line.split() for line in _COUNTERS.read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
