r"""Finds the pieces of a response that may be its answer.

The last declaration wins: a ``\boxed{}`` or a phrase such as "Answer:" or "the answer is". Without a declaration, a
whole short response or its last line counts if it contains only an answer. Nothing is guessed.

Changes of what is found here need a new ``vold.answers.VERSION``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from vold.answers.text import LONGEST

LONGEST_RESPONSE = 200_000
"""Characters that are read, counted from the end of the response."""

MOST_CLAIMS = 16
"""Declarations that are read, counted from the last."""

Method = Literal["boxed", "declared", "lone"]

DeclarationKind = Literal["boxed", "declared", "named"]
ClaimSpan = tuple[int, int, int, DeclarationKind]
"""A declaration: the positions where it starts, where it ends and where its text starts, and its kind."""

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(_BOX.pattern + r"|\\[{}]|\{+|\}+")
_MARKER = re.compile(
    r"\b(?:(?:correct|right|best|final)\s+(?:answer|option|choice|result)|answers?)\b[*_\"']{0,4}\s{0,4}"
    r"(?:(?:to|for)\b[^\n.:]{0,60}?)?\s{0,4}"
    r"(?:is|are|:|=|would be|should be|must be)(?![a-z])[*_\"']{0,4} {0,4}:?",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?<![\w'])\(?([A-Z])\)?[*_]{0,4}\s{1,2}is\s{1,2}(?:thus\s|therefore\s)?(?:the\s{1,2})?"
    r"(?:correct|right|best)\b(?! to)"
)


_NO_DECLARATION = re.compile(
    r"\b(?:wrong|incorrect|false|possible|potential|plausible)\s{1,4}$"
    r"|\b(?:assum(?:e|ed|es|ing)|suppos(?:e|ed|es|ing)|whether|if|unless|pretend)\s{1,4}(?:that\s{1,4})?(?:(?:the|an?|our|my)\s{1,4})?$",
    re.IGNORECASE,
)
"""Words before a phrase that declares nothing: "wrong answer: A", "assume the answer is A"."""
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|cannot\s+be|neither|nor|except)|n['’]t)(?:\s+be)?[\s$*({:]{1,6}$", re.IGNORECASE
)
_DENIED_AFTER = re.compile(
    r"[\s$*)}]{0,6}(?:(?:is|are|was)\s+(?:wrong|incorrect|false)\b"
    r"|(?:(?:is|are|was)(?:\s+not|n['’]t)|cannot\s+be|can['’]t\s+be)\s+(?:the|an?|our|correct|right|possible|valid)\b)",
    re.IGNORECASE,
)
_OPEN_BOX = re.compile(r"^\$?\\(?:boxed|fbox)\s*\{(?=[^{}]*$)")
_NEAR = 60
"""Characters before and after a declaration that are searched for words that withdraw it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a response that may be its answer."""

    text: str
    method: Method


def claims(response: str) -> Iterator[Claim]:
    """Candidates for the answer, the most decisive first. Takes time linear in the length of the response."""
    response = response[-LONGEST_RESPONSE:]
    spans = _boxed(response)
    spans.extend((match.start(), match.end(), match.end(), "declared") for match in _MARKER.finditer(response))
    spans.extend((match.start(), match.end(), match.start(1), "named") for match in _NAMED.finditer(response))
    spans.sort(key=lambda span: span[1], reverse=True)
    # The texts are cut out lazily, because a hostile response may have thousands of declarations.
    readable = ((span, text) for span in spans if (text := _text(response, span)).strip())
    for (start, end, _, kind), text in islice(readable, MOST_CLAIMS):
        if not _withdrawn(response, start, end, kind):
            yield Claim(text, "boxed" if kind == "boxed" else "declared")
    stripped = response.strip(" \t\r\n")
    for text in dict.fromkeys((stripped, stripped.rpartition("\n")[2].strip())):
        if text and len(text) <= LONGEST and not _MARKER.search(text):  # a declaration that could not be read
            yield Claim(text, "lone")


def last_box(response: str) -> str | None:
    r"""The content of the last closed ``\boxed{}``, however long, or None if there is none."""
    end, start = max(((end, start) for _, end, start, _ in _boxed(response)), default=(-1, 0))
    return None if end < 0 else response[start:end]


def _withdrawn(response: str, start: int, end: int, kind: DeclarationKind) -> bool:
    """Whether the words around a declaration deny it or only suppose it."""
    before = response[max(0, start - _NEAR) : start]
    if kind == "boxed":
        return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(response, end + 1, end + _NEAR))
    return bool(_NO_DECLARATION.search(before))


def _boxed(response: str) -> list[ClaimSpan]:
    r"""Every closed ``\boxed{}``, however deeply nested, in one pass over runs of braces."""
    spans: list[ClaimSpan] = []
    opened: list[tuple[int, int, int]] = []  # the start of a box, the start of its content, the depth outside
    depth = 0
    first = _BOX.search(response)
    for match in _BRACES.finditer(response, first.start()) if first else ():
        token, at = match.group(), match.start()
        if token[0] == "{":
            depth += len(token)
        elif token[0] == "}":
            left = max(0, depth - len(token))
            while opened and opened[-1][2] >= left:
                begin, start, outside = opened.pop()
                spans.append((begin, at + depth - 1 - outside, start, "boxed"))
            depth = left
        elif len(token) > 2:  # a box, not an escaped brace
            opened.append((at, match.end(), depth))
            depth += 1
    return spans


def _text(response: str, span: ClaimSpan) -> str:
    """The text that a declaration declares."""
    _, end, start, kind = span
    if kind == "boxed":
        return response[start : min(end, start + LONGEST + 1)]
    return response[start] if kind == "named" else _line(response, start)


def _line(response: str, start: int) -> str:
    """The first line with content, from ``start``."""
    piece = response[start : start + LONGEST].lstrip(" \t\r\n*_`")
    return _OPEN_BOX.sub("", piece.partition("\n")[0])
