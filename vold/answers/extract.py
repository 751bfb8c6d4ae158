r"""Where a response says what its answer is.

The last declaration wins: a ``\boxed{}`` or a phrase such as "Answer:" or "the answer is"; where nothing is
declared, a last line (or a whole short response) that is nothing but an answer. Nothing is guessed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from vold.answers.text import LONGEST

LONGEST_RESPONSE = 200_000
"""Characters of a response that are looked at, counted from its end."""

MOST_CLAIMS = 16
"""Declarations that are looked at, the last ones."""

Method = Literal["boxed", "declared", "lone"]

How = Literal["boxed", "declared", "named"]
ClaimSpan = tuple[int, int, int, How]
"""Of a declaration: where it starts and ends, where its text starts, and how it declares."""

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
"""What stands before a phrase that declares nothing: "wrong answer: A", "assume the answer is A"."""
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
"""Characters before and after a declaration in which it is taken back."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a response that may be its answer."""

    text: str
    method: Method


def claims(response: str) -> Iterator[Claim]:
    """Candidates, the deciding one first; linear in the response's length."""
    response = response[-LONGEST_RESPONSE:]
    found = _boxed(response)
    found.extend((match.start(), match.end(), match.end(), "declared") for match in _MARKER.finditer(response))
    found.extend((match.start(), match.end(), match.start(1), "named") for match in _NAMED.finditer(response))
    found.sort(key=lambda place: place[1], reverse=True)
    # Texts are cut out one by one: a hostile response declares thousands of times.
    readable = ((place, text) for place in found if (text := _text(response, place)).strip())
    for (start, end, _, how), text in islice(readable, MOST_CLAIMS):
        if not _taken_back(response, start, end, how):
            yield Claim(text, "boxed" if how == "boxed" else "declared")
    whole = response.strip(" \t\r\n")
    for text in dict.fromkeys((whole, whole.rpartition("\n")[2].strip())):
        if text and len(text) <= LONGEST and not _MARKER.search(text):  # a declaration that could not be read
            yield Claim(text, "lone")


def _taken_back(response: str, start: int, end: int, how: How) -> bool:
    """Whether the words around a declaration deny it or only suppose it."""
    before = response[max(0, start - _NEAR) : start]
    if how == "boxed":
        return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(response, end + 1, end + _NEAR))
    return bool(_NO_DECLARATION.search(before))


def _boxed(response: str) -> list[ClaimSpan]:
    r"""Every closed ``\boxed{}``, whatever the nesting; one pass over runs of braces."""
    found: list[ClaimSpan] = []
    opened: list[tuple[int, int, int]] = []  # where a box and its content start, and the depth around it
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
                found.append((begin, at + depth - 1 - outside, start, "boxed"))
            depth = left
        elif len(token) > 2:  # and no escaped brace
            opened.append((at, match.end(), depth))
            depth += 1
    return found


def _text(response: str, place: ClaimSpan) -> str:
    """What is declared at a place."""
    _, end, start, how = place
    if how == "boxed":
        return response[start : min(end, start + LONGEST + 1)]
    return response[start] if how == "named" else _line(response, start)


def _line(response: str, start: int) -> str:
    """The first line with content from ``start`` on."""
    piece = response[start : start + LONGEST].lstrip(" \t\r\n*_`")
    return _OPEN_BOX.sub("", piece.partition("\n")[0])
