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

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
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
    found = [(start, end, Claim(text, "boxed")) for start, end, text in _boxed(response)]
    for match in _MARKER.finditer(response):
        found.append((match.start(), match.end(), Claim(_line(response, match.end()), "declared")))
    found += [(match.start(), match.end(), Claim(match[1], "declared")) for match in _NAMED.finditer(response)]
    found.sort(key=lambda place: place[1], reverse=True)
    for start, end, claim in islice((place for place in found if place[2].text.strip()), MOST_CLAIMS):
        if not _taken_back(response, start, end, claim.method):
            yield claim
    whole = response.strip(" \t\r\n")
    for text in dict.fromkeys((whole, whole.rpartition("\n")[2].strip())):
        if text and len(text) <= LONGEST and not _MARKER.search(text):  # a declaration that could not be read
            yield Claim(text, "lone")


def _taken_back(response: str, start: int, end: int, method: Method) -> bool:
    """Whether the words around a declaration deny it or only suppose it."""
    before = response[max(0, start - _NEAR) : start]
    if method == "boxed":
        return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(response, end + 1, end + _NEAR))
    return bool(_NO_DECLARATION.search(before))


def _boxed(response: str) -> list[tuple[int, int, str]]:
    r"""(start, end, content) of every closed ``\boxed{}``; one pass with a stack, whatever the nesting."""
    found: list[tuple[int, int, str]] = []
    stack: list[tuple[int, int, bool]] = []
    for match in _BRACES.finditer(response):
        token = match.group()
        if token == "{" or token.startswith((r"\boxed", r"\fbox")):
            stack.append((match.start(), match.end(), token != "{"))
        elif token == "}" and stack:
            begin, start, boxed = stack.pop()
            if boxed:
                found.append((begin, match.start(), response[start : min(match.start(), start + LONGEST + 1)]))
    return found


def _line(response: str, start: int) -> str:
    """The first line with content from ``start`` on."""
    piece = response[start : start + LONGEST].lstrip(" \t\r\n*_`")
    return _OPEN_BOX.sub("", piece.partition("\n")[0])
