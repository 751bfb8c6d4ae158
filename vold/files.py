"""Files that appear whole or not at all, and full disks told clearly."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DiskFullError(RuntimeError):
    """No space left while writing; what was there before is untouched."""


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turn a full disk or quota (also as safetensors words it) into DiskFullError naming ``path``."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    try:
        yield
    except Exception as error:
        code = getattr(error, "errno", None)
        if code in full or any(f"(os error {value})" in str(error) for value in full):
            raise DiskFullError(f"{path}: cannot be written, the disk is full; free space and run again") from error
        raise


def sync(path: Path) -> None:
    """Flush a file or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def publish_directory(out: Path) -> Iterator[Path]:
    """Yield a scratch directory beside ``out`` that takes its name when the block ends without an error."""
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        with disk_full_named(out):
            yield scratch
            for file in scratch.iterdir():
                sync(file)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if out.exists():
        shutil.rmtree(out)
    scratch.rename(out)
    sync(out.parent)
