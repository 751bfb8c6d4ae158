"""Labels of options (A, B, ...) as they are written in answers."""

import re
import string
from collections.abc import Sequence

from vold.answers.text import clean, plain

DEFAULT_LABELS = tuple("ABCDEFGHI")
"""What counts as a label where an item has letters for answers and no list of options."""

_SEPARATORS = re.compile(r"\s*(?:,|;|&|/|\band\b|\bor\b|\s)\s*")
_PREFIX = re.compile(
    r"^(?:(?:the|either|correct|option|options|choice|choices|answer|answers|is|are|figure|image|picture|box)\b[\s:]*)+",
    re.IGNORECASE,
)
_BARE = re.compile(r"^[\s(\[{]*([A-Za-z1-9])[\s)\]}.:,]*$")
_LED = re.compile(r"^(?:\(([A-Za-z])\)|([A-Z])(?=[.):,]))[.):,]*\s*(.*)$", re.DOTALL)
_SPACED = re.compile(r"^([A-Z])\s+(.+)$", re.DOTALL)


def of(options: Sequence[str]) -> tuple[str, ...]:
    """The labels of an item with these options."""
    return tuple(string.ascii_uppercase[: len(options)])


def read(text: str, labels: Sequence[str], options: Sequence[str] = ()) -> frozenset[str]:
    """The labels that ``text`` names, empty where it names none or one that the item does not have.

    A label wins over an option's text; a text counts only where exactly one option has it.
    """
    text = _PREFIX.sub("", clean(text)) or clean(text)
    named = _named(text, labels, options)
    if named:
        return named
    same = by_text(text, options)
    return same if len(same) == 1 else frozenset()


def by_text(text: str, options: Sequence[str]) -> frozenset[str]:
    """The labels of all options that read like ``text``."""
    wanted = plain(text)
    pairs = zip(of(options), options, strict=False)  # labels end at Z
    return frozenset(label for label, option in pairs if wanted and plain(option) == wanted)


def _named(text: str, labels: Sequence[str], options: Sequence[str]) -> frozenset[str]:
    if bare := _BARE.match(text):
        return _label(bare[1], labels, options)
    led = _LED.match(text)
    if led and (label := _label(led[1] or led[2], labels, options)) and not _listed(text, labels):
        return label
    spaced = _SPACED.match(text)
    if spaced and spaced[1] in labels and options and by_text(spaced[2], options) == frozenset((spaced[1],)):
        return frozenset((spaced[1],))
    return _listed(text, labels)


def _label(letter: str, labels: Sequence[str], options: Sequence[str]) -> frozenset[str]:
    """The label that a letter means; a small letter only where no option consists of it (MathVista 168)."""
    if letter in labels:
        return frozenset((letter,))
    is_option = any(plain(option).strip("()[].") == letter for option in options)
    return frozenset((letter.upper(),)) if letter.upper() in labels and not is_option else frozenset()


def _listed(text: str, labels: Sequence[str]) -> frozenset[str]:
    """The labels of a list such as "A, C" or "(A) and (C)"; empty where anything else stands in it."""
    parts = [part for piece in _SEPARATORS.split(text) if (part := piece.strip("()[]{}. "))]
    return frozenset(parts) if 0 < len(parts) <= len(labels) and all(part in labels for part in parts) else frozenset()
