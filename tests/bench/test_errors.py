import errno

import pytest

from bench.errors import (
    EXIT_CODES,
    ConfigurationError,
    ErrorClass,
    ExitCode,
    InfrastructureError,
    classify,
    is_disk_full,
)
from vold.data.reading import read_prompts
from vold.files import DiskFullError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigurationError("x"), ErrorClass.CONFIGURATION),
        (InfrastructureError("x"), ErrorClass.INFRASTRUCTURE),
        (FileNotFoundError("x"), ErrorClass.CONFIGURATION),
        (MemoryError(), ErrorClass.OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA out of memory"), ErrorClass.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ErrorClass.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), ErrorClass.INFRASTRUCTURE),
        (OSError(errno.EIO, "Input/output error"), ErrorClass.INFRASTRUCTURE),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ErrorClass.INFRASTRUCTURE),
        (DiskFullError("x"), ErrorClass.INFRASTRUCTURE),
        (ConnectionResetError(), ErrorClass.INFRASTRUCTURE),
        (KeyError("x"), ErrorClass.FAILED),
        (ValueError("raised by a test, not by the project"), ErrorClass.FAILED),
    ],
)
def test_errors_have_a_class(error, expected):
    assert classify(raised(error)) is expected


def test_a_value_error_of_our_own_code_is_a_refusal_of_input(tmp_path):
    (tmp_path / "p.jsonl").write_text("{")
    with pytest.raises(ValueError, match="not JSON") as caught:
        read_prompts(tmp_path / "p.jsonl")
    assert classify(caught.value) is ErrorClass.CONFIGURATION


def test_a_full_disk_is_seen_through_the_error_it_caused():
    error = RuntimeError("checkpoint not written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_disk_full(error) and not is_disk_full(RuntimeError("no"))


def test_every_exit_code_is_documented_and_a_defect_never_looks_like_a_regression():
    assert set(EXIT_CODES) == set(ExitCode)
    assert ExitCode.INTERNAL not in (ExitCode.OK, ExitCode.REGRESSION, ExitCode.INCOMPLETE)
    assert {error.exit_code for error in ErrorClass}.isdisjoint({0, 1, 2, 3})
