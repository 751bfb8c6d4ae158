"""Named, versioned prompt templates; a problem becomes text and pictures in the order a model reads them."""

import hashlib
import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from bench.errors import ConfigurationError
from bench.records import Problem

_MARK = re.compile(r"<image ?(\d+)>")
NO_QUESTION = "solve"
"""What is asked beside a page that holds the whole question (MMMU-Pro vision, small world)."""


class Part(TypedDict):
    """A piece of the user's turn: a text, or a picture by its path."""

    type: Literal["text", "image"]
    text: NotRequired[str]
    path: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Template:
    """``instruction`` gives what follows the question and its options; "" adds nothing, not even a line break."""

    name: str
    instruction: Callable[[Problem], str]


def _nothing(problem: Problem) -> str:
    return ""


def _boxed(problem: Problem) -> str:
    return r"Please reason step by step, and put your final answer within \boxed{}."


def _direct(problem: Problem) -> str:
    if problem.kind == "choice":
        return "Answer with the option letter from the given choices directly."
    if problem.kind == "choices":
        return "Answer with the letters of all correct choices, separated by commas, directly."
    return "Answer with the final value directly, without an explanation."


def _cot(problem: Problem) -> str:
    what = {"choice": "the option letter", "choices": "the letters of all correct choices"}.get(
        problem.kind, "the value"
    )
    return (
        "Think step by step before answering. The last line of your response should be of the following format: "
        f"'Answer: X' (without quotes) where X is {what}."
    )


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("plain@1", _nothing),
        Template("boxed@1", _boxed),
        Template("direct@1", _direct),
        Template("cot@1", _cot),
    )
}


def template(name: str) -> Template:
    """A template by ``name@version``; a bare name means its newest version. Raises ConfigurationError."""
    versions = [key for key in TEMPLATES if key == name or key.partition("@")[0] == name]
    if not versions:
        raise ConfigurationError(f"unknown prompt template {name!r}; choose from {', '.join(TEMPLATES)}")
    return TEMPLATES[max(versions, key=lambda key: int(key.partition("@")[2]))]


def render(problem: Problem, name: str = "plain@1", *, blind: bool = False) -> list[Part]:
    """The user's turn. Picture k stands where ``<image k>`` is first mentioned, or first of all if nowhere.

    Later mentions, and marks of pictures that the record does not have, stay as text: they still refer.
    Options follow as lines ``A. text`` where the benchmark gives any and the question is not on the page.
    blind: leave all pictures out, to measure what the text alone gives away.
    """
    question = problem.question or NO_QUESTION
    lines = [question]
    if problem.question and problem.options:
        lines += [f"{label}. {text}" for label, text in zip(string.ascii_uppercase, problem.options, strict=False)]
    if instruction := template(name).instruction(problem):
        lines.append(instruction)
    return _interleave("\n".join(lines), () if blind else problem.images)


def _interleave(text: str, images: Sequence[Path]) -> list[Part]:
    marks = {int(mark[1]) for mark in _MARK.finditer(text)}
    parts: list[Part] = [_picture(path) for number, path in enumerate(images, 1) if number not in marks]
    start, shown = 0, set()
    for mark in _MARK.finditer(text):
        number = int(mark[1])
        if number in shown or not 1 <= number <= len(images):
            continue
        shown.add(number)
        parts += _text(text[start : mark.start()])
        parts.append(_picture(images[number - 1]))
        start = mark.end()
    return parts + _text(text[start:])


def _picture(path: Path) -> Part:
    return {"type": "image", "path": str(path)}


def _text(text: str) -> list[Part]:
    return [{"type": "text", "text": text}] if text else []


def prompt_hash(parts: Sequence[Part]) -> str:
    """SHA-256 over texts and the pictures' bytes: it does not depend on where the files lie."""
    return hashlib.sha256(json.dumps([_identity(part) for part in parts], ensure_ascii=False).encode()).hexdigest()


def _identity(part: Part) -> list[str]:
    if "path" not in part:
        return ["text", part.get("text", "")]
    try:
        return ["image", hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest()]
    except OSError:
        return ["image", "unreadable"]
