"""Memory that ran out, of the machine or a GPU: known by an error's type or by the words of whoever died of it."""

import re

# Of torch on GPUs, of CUDA itself, of torch on CPUs, of the C library, and of Python.
_WORDS = re.compile(
    r"OutOfMemoryError|(?:CUDA|HIP|error:) out of memory|can't allocate memory|Cannot allocate memory|\bMemoryError\b"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; torch's own is known by its name, so that torch is not needed."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError | OSError) and tells_out_of_memory(str(error))


def tells_out_of_memory(text: str) -> bool:
    """Whether a message, or a line of a log, says so."""
    return _WORDS.search(text) is not None
