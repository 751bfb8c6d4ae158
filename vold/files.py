"""Writing files and directories atomically, errors for full disks, and the files that make up a model."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JsonObject = Mapping[str, Any]
"""An object of a JSON file or message. Only the code that reads a value knows its type."""
WEIGHTS = ".safetensors"
MODEL_SUFFIXES = frozenset({WEIGHTS, ".json", ".jinja", ".txt"})
"""Suffixes of the files that make up a checkpoint: weights, settings, chat template, tokenizer."""

_NAME_BYTES = 160
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(RuntimeError):
    """The disk was full while writing. What was there before is unchanged."""


def cache_root() -> Path:
    """The directory of everything that can be created again: ``$VOLD_BENCH_CACHE`` or ``~/.cache/vold-bench``."""
    return Path(os.environ.get("VOLD_BENCH_CACHE") or Path.home() / ".cache" / "vold-bench")


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or one that caused it, says that no space or quota is left.

    Libraries written in Rust (safetensors) report this as text and not as an errno.
    """
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, DiskFullError) or getattr(chain, "errno", None) in _DISK_FULL:
            return True
        text = str(chain)
        if "No space left on device" in text or any(f"(os error {code})" in text for code in _DISK_FULL):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """A context that turns the error for a full disk or quota into DiskFullError, which names ``path``."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(f"{path}: cannot be written, the disk is full; free space and run again") from error
        raise


def sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically, even if other processes write it at the same time. Raises DiskFullError."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with naming_full_disk(path):
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
            sync(scratch)
            scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def file_name(text: str) -> str:
    """``text`` as a file name: special characters become ``-``, and a long text is cut.

    A name that differs from its text ends with digits of the text's hash, so that different texts have different names.
    """
    name = re.sub(r"[^\w.-]+", "-", text).encode()[:_NAME_BYTES].decode(errors="ignore")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def scratch_path(out: Path) -> Path:
    """The directory that ``publish_directory(out)`` renames to ``out``."""
    return out.with_name(f".{out.name}.partial")


@contextmanager
def publish_directory(out: Path) -> Iterator[Path]:
    """Yield a scratch directory next to ``out``, which is renamed to ``out`` if the block ends without an error."""
    scratch = scratch_path(out)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        with naming_full_disk(out):
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
