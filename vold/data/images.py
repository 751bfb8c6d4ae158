"""The images of training data as files, and the prompts as a teacher without vision reads them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vold.config import ImagePolicy
from vold.data.formats import MalformedRow
from vold.data.prompts import Prompt
from vold.files import cache_root, write_whole


def cache_directory() -> Path:
    """The directory of images that were stored inside tables."""
    return cache_root() / "images"


def image_file(value: object, directory: Path) -> Path:
    """The file of one entry of ``images``: a path in ``directory``, or bytes, which are written to the cache.

    Raises MalformedRow for anything else, for a missing file and for a path that leads out of ``directory``.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return cache_image(value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise MalformedRow("an image must be a path, or an object with bytes or path")
    path = directory / value
    if not path.resolve().is_relative_to(directory.resolve()):
        raise MalformedRow(f"the image {value!r} is outside of {directory}")
    if not path.is_file():
        raise MalformedRow(f"the image {path} does not exist")
    return path


def cache_image(content: bytes) -> Path:
    """Write an image's bytes to the cache, under the name of their hash, and return the path."""
    path = cached_image_path(hashlib.sha256(content).hexdigest())
    if not path.is_file() or path.stat().st_size != len(content):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return path


def cached_image_path(sha256: str) -> Path:
    """The path in the cache of the image with this hash. Raises ValueError if ``sha256`` is not a hash."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(
            f"{sha256[:80]!r} is not the SHA-256 of an image; replace the file that contains it with a new copy"
        )
    return cache_directory() / sha256[:2] / sha256


def check_images(prompts: Sequence[Prompt], policy: ImagePolicy, setting: str) -> None:
    """Raise ValueError if a text-only teacher cannot read some prompts under ``policy``, the value of ``setting``.

    The message names the first such prompts and what to change.
    """
    with_images = [prompt for prompt in prompts if prompt.images]
    if policy == "refuse" and with_images:
        raise ValueError(
            f"{len(with_images)} of {len(prompts)} prompts have images (the first is {with_images[0].id!r}), but the "
            f"teacher reads only text; set {setting} to skip or to caption, or train without a teacher"
        )
    without_caption = [prompt.id for prompt in with_images if not prompt.caption.strip()]
    if policy == "caption" and without_caption:
        names = ", ".join(map(repr, without_caption[:5])) + (", ..." if len(without_caption) > 5 else "")
        raise ValueError(
            f"{len(without_caption)} of {len(with_images)} prompts with images have no caption ({names}); "
            f"add the captions, or set {setting} to skip"
        )


def text_for_teacher(prompt: Prompt, policy: ImagePolicy) -> str | None:
    """A prompt as a text-only teacher reads it. None if the policy is not to show it to the teacher."""
    if not prompt.images:
        return prompt.text
    return prompt.in_words() if policy == "caption" else None
