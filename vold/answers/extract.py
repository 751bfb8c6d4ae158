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


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a response that may be its answer."""

    text: str
    method: Method


def claims(response: str) -> Iterator[Claim]:
    """Candidates, the deciding one first; linear in the response's length."""
    response = response[-LONGEST_RESPONSE:]
    found = [(at, Claim(text, "boxed")) for at, text in _boxed(response)]
    found += [(match.end(), Claim(_line(response, match.end()), "declared")) for match in _MARKER.finditer(response)]
    found += [(match.end(), Claim(match[1], "declared")) for match in _NAMED.finditer(response)]
    found.sort(key=lambda pair: pair[0], reverse=True)
    yield from islice((claim for _, claim in found if claim.text.strip()), MOST_CLAIMS)
    whole = response.strip(" \t\r\n")
    if whole and len(whole) <= LONGEST:
        yield Claim(whole, "lone")
    last = whole.rpartition("\n")[2].strip()
    if last and last != whole and len(last) <= LONGEST:
        yield Claim(last, "lone")


def _boxed(response: str) -> list[tuple[int, str]]:
    r"""(end, content) of every closed ``\boxed{}``; one pass with a stack, whatever the nesting."""
    found: list[tuple[int, str]] = []
    stack: list[tuple[int, bool]] = []
    for match in _BRACES.finditer(response):
        token = match.group()
        if token == "{" or token.startswith((r"\boxed", r"\fbox")):
            stack.append((match.end(), token != "{"))
        elif token == "}" and stack:
            start, boxed = stack.pop()
            if boxed:
                found.append((match.start(), response[start : min(match.start(), start + LONGEST + 1)]))
    return found


def _line(response: str, start: int) -> str:
    """The first line with content from ``start`` on."""
    piece = response[start : start + LONGEST].lstrip(" \t\r\n*_`")
    return piece.partition("\n")[0]
