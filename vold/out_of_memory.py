"""Memory that ran out, of the machine or a GPU: known by an error's type or by the words of whoever died of it."""

import re
from pathlib import Path

# Of torch on GPUs, of CUDA itself, of torch on CPUs, of the C library, of Python, and of Linux.
_WORDS = re.compile(
    r"OutOfMemoryError|(?:CUDA|HIP|error:) out of memory|can't allocate memory|Cannot allocate memory|\bMemoryError\b"
    r"|Out of memory: "
)
_COUNTERS = Path("/proc/vmstat")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; torch's own is known by its name, so that torch is not needed."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError | OSError) and tells_out_of_memory(str(error))


def tells_out_of_memory(text: str) -> bool:
    """Whether a message, or a line of a log, says so."""
    return _WORDS.search(text) is not None


def kernel_kills() -> int:
    """Processes that the kernel has killed since it started because memory ran out; 0 where it does not count them."""
    try:
        counters = dict(line.split() for line in _COUNTERS.read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
