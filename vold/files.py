"""Files that appear whole or not at all, full disks told clearly, and which files make a model."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WEIGHTS = ".safetensors"
MODEL_SUFFIXES = frozenset({WEIGHTS, ".json", ".jinja", ".txt"})
"""Endings of the files that make a checkpoint: weights, settings, chat template, tokenizer."""

_NAME_BYTES = 160
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DiskFullError(RuntimeError):
    """No space left while writing; what was there before is untouched."""


def cache_root() -> Path:
    """Where what can be made again is kept: ``$VOLD_BENCH_CACHE`` or ``~/.cache/vold-bench``."""
    return Path(os.environ.get("VOLD_BENCH_CACHE") or Path.home() / ".cache" / "vold-bench")


def is_disk_full(error: BaseException) -> bool:
    """Whether the error, or one that it was raised from, says that no space or quota is left.

    Libraries written in Rust (safetensors) report it as text, not as an errno.
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
def disk_full_named(path: Path) -> Iterator[None]:
    """Turn a full disk or quota into DiskFullError naming ``path``."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise DiskFullError(f"{path}: cannot be written, the disk is full; free space and run again") from error
        raise


def sync(path: Path) -> None:
    """Flush a file or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all, whoever else writes it; raises DiskFullError."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with disk_full_named(path):
            scratch.write_bytes(content.encode() if isinstance(content, str) else content)
            sync(scratch)
            scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def file_name(text: str) -> str:
    """``text`` as the name of a file: other signs become ``-``, a long one is cut, and digits of its hash then tell it
    from others."""
    name = re.sub(r"[^\w.-]+", "-", text).encode()[:_NAME_BYTES].decode(errors="ignore")
    return name if name == text else f"{name}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def scratch_path(out: Path) -> Path:
    """Where ``publish_directory(out)`` gathers what will be ``out``."""
    return out.with_name(f".{out.name}.partial")


@contextmanager
def publish_directory(out: Path) -> Iterator[Path]:
    """Yield a scratch directory beside ``out`` that takes its name when the block ends without an error."""
    scratch = scratch_path(out)
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
