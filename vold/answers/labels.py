"""Labels of options (A, B, ...) in answers.

Changes of what is read here need a new ``vold.answers.VERSION``.
"""

import re
import string
from collections.abc import Sequence

from vold.answers.text import clean, plain

DEFAULT_LABELS = tuple("ABCDEFGHI")
"""The labels of a problem whose reference answer is a letter but that lists no options."""

_SEPARATORS = re.compile(r"\s*(?:,|;|&|/|\band\b|\bor\b|\s)\s*")
_PREFIX = re.compile(
    r"^(?:(?:the|either|correct|option|options|choice|choices|answer|answers|is|are|figure|image|picture|box)\b[\s:]*)+",
    re.IGNORECASE,
)
_BARE = re.compile(r"^[\s(\[{]*([A-Za-z1-9])[\s)\]}.:,]*$")
_MARKED = re.compile(r"^(?:\(([A-Za-z])\)|([A-Z])(?=[.):,]))[.):,]*\s*(.*)$", re.DOTALL)
_SPACED = re.compile(r"^([A-Z])\s+(.+)$", re.DOTALL)


def of(options: Sequence[str]) -> tuple[str, ...]:
    """The labels of a problem with these options."""
    return tuple(string.ascii_uppercase[: len(options)])


def read(text: str, labels: Sequence[str], options: Sequence[str] = ()) -> frozenset[str]:
    """The labels that ``text`` names. Empty if it names none, or one that the problem does not have.

    A label wins over an option's text. A text counts only if exactly one option has it.
    """
    text = _PREFIX.sub("", clean(text)) or clean(text)
    named = _named(text, labels, options)
    if named:
        return named
    matches = by_text(text, options)
    return matches if len(matches) == 1 else frozenset()


def by_text(text: str, options: Sequence[str]) -> frozenset[str]:
    """The labels of all options whose text equals ``text`` after cleaning."""
    cleaned = plain(text)
    pairs = zip(of(options), options, strict=False)  # labels end at Z
    return frozenset(label for label, option in pairs if cleaned and plain(option) == cleaned)


def _named(text: str, labels: Sequence[str], options: Sequence[str]) -> frozenset[str]:
    if bare := _BARE.match(text):
        return _label(bare[1], labels, options)
    marked = _MARKED.match(text)
    if marked and (label := _label(marked[1] or marked[2], labels, options)) and not _listed(text, labels):
        return label
    spaced = _SPACED.match(text)
    if spaced and spaced[1] in labels and options and by_text(spaced[2], options) == frozenset((spaced[1],)):
        return frozenset((spaced[1],))
    return _listed(text, labels)


def _label(letter: str, labels: Sequence[str], options: Sequence[str]) -> frozenset[str]:
    """The label that a letter means. A small letter counts only if it is not itself an option (MathVista 168)."""
    if letter in labels:
        return frozenset((letter,))
    is_option = any(plain(option).strip("()[].") == letter for option in options)
    return frozenset((letter.upper(),)) if letter.upper() in labels and not is_option else frozenset()


def _listed(text: str, labels: Sequence[str]) -> frozenset[str]:
    """The labels of a list such as "A, C" or "(A) and (C)". Empty if the list contains anything else."""
    parts = [part for piece in _SEPARATORS.split(text) if (part := piece.strip("()[]{}. "))]
    return frozenset(parts) if 0 < len(parts) <= len(labels) and all(part in labels for part in parts) else frozenset()
