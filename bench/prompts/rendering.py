"""From a problem to the parts of the user's turn: texts, and images where their marks stand."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from bench.errors import ConfigurationError
from bench.prompts.library import find_template
from bench.records import Problem

_MARK = re.compile(r"<image ?(\d+)>")


class PromptPart(TypedDict):
    """A piece of the user's turn: a text, or an image by its path."""

    type: Literal["text", "image"]
    text: NotRequired[str]
    path: NotRequired[str]


def render(problem: Problem, name: str = "plain@1", *, blind: bool = False) -> list[PromptPart]:
    """The user's turn. Image k stands where ``<image k>`` is first mentioned, or first of all if nowhere.

    Later mentions, and marks of images that the record does not have, stay as text: they still refer.
    blind: leave all images out, to measure what the text alone gives away. Raises ConfigurationError for a template
    that is not there, or is another benchmark's.
    """
    chosen = find_template(name)
    if chosen.benchmark not in (None, problem.benchmark):
        raise ConfigurationError(
            f"the prompt template {chosen.name!r} is for {chosen.benchmark}, not for {problem.benchmark}; "
            "official@1 asks each benchmark in its own way"
        )
    return _interleave(chosen.text(problem), () if blind else problem.images)


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
    """SHA-256 over texts and the images' bytes: it does not depend on where the files lie."""
    return hashlib.sha256(json.dumps([_identity(part) for part in parts], ensure_ascii=False).encode()).hexdigest()


def _identity(part: PromptPart) -> list[str]:
    if "path" not in part:
        return ["text", part.get("text", "")]
    try:
        return ["image", hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest()]
    except OSError:
        return ["image", "unreadable"]
