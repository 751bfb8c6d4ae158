"""The pictures that rows of training data name or hold, as files."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vold.data.formats import MalformedRow
from vold.files import write_whole


def cache_directory() -> Path:
    """Where pictures that lie inside tables are put once: ``$VOLD_BENCH_CACHE`` or ``~/.cache/vold-bench``."""
    return Path(os.environ.get("VOLD_BENCH_CACHE") or Path.home() / ".cache" / "vold-bench") / "pictures"


def picture_file(value: Any, directory: Path) -> Path:
    """The file of one entry of ``images``: a path under ``directory``, or bytes that are written to the cache.

    Raises MalformedRow for anything else, a missing file or a path that leads out of ``directory``.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return _cached(value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise MalformedRow("a picture must be a path, or an object with bytes or path")
    path = directory / value
    if not path.resolve().is_relative_to(directory.resolve()):
        raise MalformedRow(f"the picture {value!r} lies outside {directory}")
    if not path.is_file():
        raise MalformedRow(f"no picture {path}")
    return path


def _cached(content: bytes) -> Path:
    """The bytes as a file that is named after them; what format they are is seen from the content."""
    name = hashlib.sha256(content).hexdigest()
    path = cache_directory() / name[:2] / name
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return path
