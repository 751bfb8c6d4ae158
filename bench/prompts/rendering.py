"""Renders a problem as the parts of a user turn: texts, with the images at their marks."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from bench.prompts.library import find_template
from bench.records import Problem

_MARK = re.compile(r"<image ?(\d+)>")


class PromptPart(TypedDict):
    """A piece of the user turn: a text, or the path of an image."""

    type: Literal["text", "image"]
    text: NotRequired[str]
    path: NotRequired[str]


def render(problem: Problem, name: str = "plain@1", *, blind: bool = False) -> list[PromptPart]:
    """The user turn. Image k is at the first ``<image k>``, or before the text if there is no such mark.

    Later marks of an image, and marks of images that the record does not have, stay in the text.

    blind: leave out all images, to measure what the text alone reveals. Raises ConfigurationError for an unknown
    template or one that does not fit the benchmark.
    """
    template = find_template(name)
    template.check(problem.benchmark)
    return _interleave(template.text(problem), () if blind else problem.images)


def _interleave(text: str, images: Sequence[Path]) -> list[PromptPart]:
    marks = {int(mark[1]) for mark in _MARK.finditer(text)}
    parts: list[PromptPart] = [_image(path) for number, path in enumerate(images, 1) if number not in marks]
    start, shown = 0, set()
    for mark in _MARK.finditer(text):
        number = int(mark[1])
        if number in shown or not 1 <= number <= len(images):
            continue
        shown.add(number)
        parts += _text(text[start : mark.start()])
        parts.append(_image(images[number - 1]))
        start = mark.end()
    return parts + _text(text[start:])


def _image(path: Path) -> PromptPart:
    return {"type": "image", "path": str(path)}


def _text(text: str) -> list[PromptPart]:
    return [{"type": "text", "text": text}] if text else []


def prompt_hash(parts: Sequence[PromptPart]) -> str:
    """SHA-256 of the texts and the bytes of the images. It does not depend on the paths of the images."""
    return hashlib.sha256(json.dumps([_identity(part) for part in parts], ensure_ascii=False).encode()).hexdigest()


def _identity(part: PromptPart) -> list[str]:
    if "path" not in part:
        return ["text", part.get("text", "")]
    try:
        return ["image", hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest()]
    except OSError:
        return ["image", "unreadable"]
