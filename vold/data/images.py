"""The images that rows of training data name or hold, as files; and what is read by a teacher that sees none."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vold.config import ImagePolicy
from vold.data.formats import MalformedRow
from vold.data.prompts import Prompt
from vold.files import cache_root, write_whole


def cache_directory() -> Path:
    """Where images that lie inside tables are put once."""
    return cache_root() / "images"


def image_file(value: Any, directory: Path) -> Path:
    """The file of one entry of ``images``: a path under ``directory``, or bytes that are written to the cache.

    Raises MalformedRow for anything else, a missing file or a path that leads out of ``directory``.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return cached(value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise MalformedRow("an image must be a path, or an object with bytes or path")
    path = directory / value
    if not path.resolve().is_relative_to(directory.resolve()):
        raise MalformedRow(f"the image {value!r} lies outside {directory}")
    if not path.is_file():
        raise MalformedRow(f"no image {path}")
    return path


def cached(content: bytes) -> Path:
    """The bytes as a file that is named after them; what format they are is seen from the content."""
    path = cached_path(hashlib.sha256(content).hexdigest())
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return path


def cached_path(sha256: str) -> Path:
    """Where the image with this hash lies, once it has been put there; raises ValueError for what is no hash."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{sha256[:80]!r} is no SHA-256 of an image; take a fresh copy of what names it")
    return cache_directory() / sha256[:2] / sha256


def check_images(prompts: Sequence[Prompt], policy: ImagePolicy, setting: str) -> None:
    """Refuse prompts that a text-only reader could not read under ``policy``, the value of ``setting``.

    Raises ValueError naming the first such prompts and the ways out.
    """
    pictured = [prompt for prompt in prompts if prompt.images]
    if policy == "refuse" and pictured:
        raise ValueError(
            f"{len(pictured)} of {len(prompts)} prompts have images (the first is {pictured[0].id!r}), and the "
            f"teacher reads text alone; set {setting} to skip or to caption, or do without the teacher"
        )
    silent = [prompt.id for prompt in pictured if not prompt.caption.strip()]
    if policy == "caption" and silent:
        shown = ", ".join(map(repr, silent[:5])) + (", ..." if len(silent) > 5 else "")
        raise ValueError(
            f"{len(silent)} of {len(pictured)} prompts with images have no caption ({shown}); "
            f"give them one, or set {setting} to skip"
        )


def text_for_teacher(prompt: Prompt, policy: ImagePolicy) -> str | None:
    """What a text-only teacher reads of a prompt; None where it must not speak."""
    if not prompt.images:
        return prompt.text
    return prompt.in_words() if policy == "caption" else None
