"""Classes of errors that end a stage, and exit codes of the command line.

A ValueError means wrong input when ``bench`` or ``vold`` raised it, and a defect when a library did. ``raised_here``
decides this by the file of the last frame of the traceback, so a moved function can change the class of its errors.
"""

import errno
import traceback
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import ClassVar

from vold.files import is_disk_full
from vold.out_of_memory import is_out_of_memory

_OWN_CODE = (str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "vold"))


class ExitCode(IntEnum):
    """Exit code of the command line; ``vold-bench --help`` lists all of them."""

    OK = 0
    REGRESSION = 1
    USAGE = 2
    INCOMPLETE = 3
    CONFIGURATION = 4
    FAILED = 5
    INFRASTRUCTURE = 6
    OUT_OF_MEMORY = 7
    INTERNAL = 70
    INTERRUPTED = 130


EXIT_CODES: dict[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.REGRESSION: "check: a guarded value got worse",
    ExitCode.USAGE: "wrong usage of the command line",
    ExitCode.INCOMPLETE: "check: inconclusive or incomplete; report: stages are missing; compare: more than the model "
    "differs",
    ExitCode.CONFIGURATION: "a file, setting, model or data set is wrong; running again changes nothing",
    ExitCode.FAILED: "a stage failed for a reason of its own, or several for different reasons; see their logs",
    ExitCode.INFRASTRUCTURE: "the machine failed (disk full, store in use, process killed); run again to resume",
    ExitCode.OUT_OF_MEMORY: "out of memory, with smaller batches too; run again to resume",
    ExitCode.INTERNAL: "unexpected error: a defect of vold-bench",
    ExitCode.INTERRUPTED: "stopped by the user; run again to resume",
}


class ErrorClass(StrEnum):
    """Why a stage failed. The class decides whether the stage is tried again."""

    CONFIGURATION = "configuration"
    INFRASTRUCTURE = "infrastructure"
    OUT_OF_MEMORY = "out_of_memory"
    FAILED = "failed"

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode[self.name]

    @property
    def retried(self) -> bool:
        """Whether the run tries the stage once more: the cause may be gone, or smaller batches may fit."""
        return self in (ErrorClass.INFRASTRUCTURE, ErrorClass.OUT_OF_MEMORY)


class VoldBenchError(Exception):
    """An error with a class. Its text says what is wrong, where, and how to fix it."""

    error_class: ClassVar[ErrorClass] = ErrorClass.FAILED

    @property
    def exit_code(self) -> ExitCode:
        return self.error_class.exit_code


class ConfigurationError(VoldBenchError, ValueError):
    """The input is wrong; running again changes nothing."""

    error_class = ErrorClass.CONFIGURATION


class InfrastructureError(VoldBenchError):
    """The machine is at fault. Finished work is kept, and running again resumes."""

    error_class = ErrorClass.INFRASTRUCTURE


class OutOfMemoryError(VoldBenchError):
    """Memory ran out, with smaller batches too. Finished work is kept, and running again resumes."""

    error_class = ErrorClass.OUT_OF_MEMORY


class StageError(VoldBenchError):
    """The error that ended a stage in another process, with the class that it had there."""

    def __init__(self, kind: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def error_class(self) -> ErrorClass:  # type: ignore[override]
        return self.kind


def describe(error: BaseException) -> str:
    """The error's text, preceded by its type unless the text is written for users."""
    text = str(error).strip()
    clear = isinstance(error, StageError) or (text and classify(error) is ErrorClass.CONFIGURATION)
    return text if clear else f"{type(error).__name__}: {text}".rstrip(": ")


def classify(error: BaseException) -> ErrorClass:
    """The class of any exception that ended a stage."""
    if isinstance(error, VoldBenchError):
        return error.error_class
    if is_out_of_memory(error):
        return ErrorClass.OUT_OF_MEMORY
    if is_disk_full(error) or isinstance(error, ConnectionError | TimeoutError):
        return ErrorClass.INFRASTRUCTURE
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return ErrorClass.CONFIGURATION
    if isinstance(error, OSError) and error.errno in {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE}:
        return ErrorClass.INFRASTRUCTURE
    if isinstance(error, ValueError) and raised_here(error):
        return ErrorClass.CONFIGURATION
    return ErrorClass.FAILED


def raised_here(error: BaseException) -> bool:
    """Whether the error was raised in ``bench`` or ``vold``.

    The last frame of the traceback decides.
    """
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and str(Path(frames[-1].filename).resolve()).startswith(_OWN_CODE)
