"""Prompts with reference answers, traces, and the JSONL files in which they are stored."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

IMAGE_MARK = "<image>"
"""Marks the position of an image in a text. If a text has no marks, its images come first."""

_WRITTEN_IF_SET = ("images", "caption")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A training problem.

    text: the user's turn. answer: the reference answer, which is a letter if there are options; empty if it is not
    known. options: empty for free-form answers. images: their files. caption: a description of the images.
    """

    id: str
    text: str
    answer: str
    options: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    caption: str = ""

    def messages(self) -> str | list[dict[str, object]]:
        """The user's turn, with parts for the images."""
        return chat(self.text, self.images)

    def in_words(self) -> str:
        """The text with the caption in place of the images, for a reader that sees only text."""
        if not self.images:
            return self.text
        if IMAGE_MARK not in self.text:
            return f"{self.caption}\n{self.text}"
        return self.text.replace(IMAGE_MARK, self.caption, 1).replace(IMAGE_MARK, "")


@dataclass(frozen=True, slots=True)
class Trace:
    """A completion for SFT to imitate. correct: None if its answer was not checked."""

    id: str
    text: str
    completion: str
    correct: bool | None = None
    images: tuple[Path, ...] = ()


def chat(text: str, images: Sequence[Path]) -> str | list[dict[str, object]]:
    """One turn of the user as ``Student.encode`` takes it: a string, or parts if there are images."""
    if not images:
        return text
    parts: list[dict[str, str]] = [] if IMAGE_MARK in text else [{"type": "image"} for _ in images]
    for number, piece in enumerate(text.split(IMAGE_MARK)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return [{"role": "user", "content": parts}]


def write_jsonl(path: Path, rows: Iterable[Prompt | Trace]) -> int:
    """Write rows with the paths of their images relative to ``path``. Returns the number of rows."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = asdict(row)
            fields["images"] = [Path(os.path.relpath(image, path.parent)).as_posix() for image in row.images]
            fields = {name: value for name, value in fields.items() if value or name not in _WRITTEN_IF_SET}
            file.write(json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count
