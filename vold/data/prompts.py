"""Prompts with verifiable answers, and the traces written for them."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

IMAGE_MARK = "<image>"
"""Stands in a text where an image stands; images without marks come first."""

_WRITTEN_IF_SET = ("images", "caption")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One training problem. ``text`` is the user's turn; ``options`` is empty for free-form answers.

    ``answer`` is the gold (an option's letter where there are options or where letters are the answer); empty where
    none is known. ``images`` are the images' files, and ``caption`` says in words what they show.
    """

    id: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    caption: str = ""

    def messages(self) -> str | list[dict[str, Any]]:
        """The user's turn, with places for the images."""
        return chat(self.text, self.images)

    def in_words(self) -> str:
        """The text with the caption in place of the images, for a reader that sees none."""
        if not self.images:
            return self.text
        if IMAGE_MARK not in self.text:
            return f"{self.caption}\n{self.text}"
        return self.text.replace(IMAGE_MARK, self.caption, 1).replace(IMAGE_MARK, "")


@dataclass(frozen=True, slots=True)
class Trace:
    """One completion imitated by SFT; ``correct`` is None where the answer was not checked."""

    id: str
    text: str
    completion: str
    correct: bool | None = None
    images: tuple[Path, ...] = ()


def chat(text: str, images: Sequence[Path]) -> str | list[dict[str, Any]]:
    """One turn of the user as ``Student.encode`` takes it: a string, or parts where there are images."""
    if not images:
        return text
    parts: list[dict[str, Any]] = [] if IMAGE_MARK in text else [{"type": "image"} for _ in images]
    for place, piece in enumerate(text.split(IMAGE_MARK)):
        parts += [{"type": "image"}] if place else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return [{"role": "user", "content": parts}]


def write_jsonl(path: Path, rows: Iterable[Prompt | Trace]) -> int:
    """Write rows with their images' places relative to ``path``; returns the number of rows."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = asdict(row)
            fields["images"] = [Path(os.path.relpath(image, path.parent)).as_posix() for image in row.images]
            fields = {name: value for name, value in fields.items() if value or name not in _WRITTEN_IF_SET}
            file.write(json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count
