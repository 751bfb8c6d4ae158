"""Normalised answers (a number with its unit, a ratio, a sequence or an expression), and when two are equal.

Numbers compare exactly as rationals. If either side is written as a decimal, a relative difference of 1e-6 is allowed,
or the precision of the problem. Ratios, tuples, sets and intervals compare part by part, so that a symbolic library
never sees them.

Changes of what is equal here need a new ``vold.answers.VERSION``.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from vold.answers import arithmetic, units
from vold.answers.text import clean

RELATIVE_TOLERANCE = Fraction(1, 10**6)
_MAX_ITEMS = 64
_MAX_DEPTH = 4
_SHOWN_BITS = 400
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_RELATION = re.compile(r"^[A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?\s*=")
_LEADING = re.compile(r"^(?:[ ;,:]|\.{2,}|\.(?!\d))+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_OTHER_THAN_EQUAL = re.compile(r"(?:[\d)}\]]|(?<![A-Za-z])[A-Za-z])\s*\b(?:or|and)\b|[<>≠].*=|!=")
_LISTED = re.compile(r"[\d=]|^\s*[A-Za-z]\s*$")
_SCALED_NAME = re.compile(
    r"(?!^[A-Za-z]$)-?\s*(?:\d[\d.,/]*|\\frac\s*\{\d+\}\s*\{\d+\})?\s*\*?\s*[A-Za-z]\s*(?:[/^]\s*\{?\w+\}?)?"
    r"|\\sqrt\s*\{\s*[A-Za-z]\s*\}"
)
_RATIO = re.compile(r"\s*(?::|\bto\b)\s*")
_BLANK = re.compile(r"\s+(?![A-Za-z])|(?<![A-Za-z])\s+")
_BARE_ARGUMENT = re.compile(r"\\sqrt\s*(\d)(?!\d)")
_WRITTEN_DECIMAL = re.compile(r"\d*\.\d|\d[eE][+-]?\d")


@dataclass(frozen=True, slots=True)
class Value:
    """A normalised answer.

    text: its normalised spelling.
    number: its exact rational value, if it has one.
    decimal: whether it is written as a decimal.
    items: the parts of a ratio or a sequence.
    """

    kind: Literal["number", "ratio", "sequence", "expression"]
    text: str
    number: Fraction | None = None
    decimal: bool = False
    unit: str = ""
    brackets: str = ""
    items: tuple["Value", ...] = ()


def parse(text: str) -> Value | None:
    """Normalise one answer; None if nothing is left of it."""
    return _parse(_LEADING.sub("", clean(text)).rstrip(" .;,:"), 0)


def _parse(text: str, depth: int) -> Value | None:
    text = text.strip()
    if text.startswith("\\{") and text.endswith("\\}"):
        text = "{" + text[2:-2] + "}"
    if not text or depth > _MAX_DEPTH:
        return None
    text = _RELATION.sub("", text).strip() or text
    number = _number(text) or _solved(text)
    return number or _sequence(text, depth) or _ratio(text, depth) or _expression(text)


def _solved(text: str) -> Value | None:
    """The number at the end of ``3 + 5 = 8`` or ``AB = 8``. None for ``2x = 8``, ``4 = 8`` and ``x = 4, x = 8``."""
    if "=" not in text or _OTHER_THAN_EQUAL.search(text):
        return None
    if any(_LISTED.search(part) for part in _split(_THOUSANDS.sub("", text))[:-1]):
        return None
    *left, tail = (part.strip() for part in text.split("="))
    solved = _number(tail)
    if solved is None or any(_SCALED_NAME.fullmatch(part) for part in left):
        return None
    numbers = [number for part in left if (number := _number(part)) is not None]
    return solved if all(_equal_numbers(number, solved, None) for number in numbers) else None


def _number(text: str) -> Value | None:
    text = text.lstrip("€£¥ ")
    unit, amount = "", text
    number = arithmetic.value(amount)
    if number is None:
        unit, amount = units.split(text, any_word=True)
        number = arithmetic.value(amount)
    if number is None:
        return None
    short = number.denominator.bit_length() + number.numerator.bit_length() < _SHOWN_BITS
    decimal = _WRITTEN_DECIMAL.search(amount) is not None
    return Value("number", (str(number) if short else _compact(amount)) + unit, number, decimal, unit)


def _expression(text: str) -> Value:
    unit, amount = units.split(text, any_word=False)
    return Value("expression", _compact(amount), unit=unit)


def _compact(text: str) -> str:
    return _BARE_ARGUMENT.sub(r"\\sqrt{\1}", _BLANK.sub("", text))


def _ratio(text: str, depth: int) -> Value | None:
    parts = _RATIO.split(text)
    if not 2 <= len(parts) <= 5:
        return None
    items = [_parse(part, depth + 1) for part in parts]
    numbers = tuple(item for item in items if item is not None and item.number is not None and not item.unit)
    return (
        Value("ratio", ":".join(item.text for item in numbers), items=numbers) if len(numbers) == len(items) else None
    )


def _sequence(text: str, depth: int) -> Value | None:
    brackets, inner = "", text
    if text[0] in _CLOSING and text[-1] in ")]}" and _encloses(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    parts = _split(inner)
    if len(parts) == 1 and not brackets:
        parts = re.split(r"\band\b", inner)
    if brackets and len(parts) == 1:
        return _parse(inner, depth + 1)
    if not 2 <= len(parts) <= _MAX_ITEMS:
        return None
    parsed = (_parse(part.strip().removeprefix("and "), depth + 1) for part in parts)
    items = tuple(item for item in parsed if item is not None)
    if len(items) != len(parts):
        return None
    inside = ",".join(item.text for item in items)
    return Value("sequence", f"{brackets[:1]}{inside}{brackets[1:]}", brackets=brackets, items=items)


def _encloses(text: str) -> bool:
    """Whether the first bracket closes at the last character and not before. Intervals may mix brackets."""
    level = 0
    for at, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if level == 0:
            return at == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Split at commas and semicolons outside brackets."""
    parts, level, start = [], 0, 0
    for at, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if character in ",;" and level == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def equal(answer: Value, reference: Value, precision: int | None = None) -> bool | None:
    """Whether ``answer`` equals ``reference``; None if only a symbolic comparison can decide.

    precision: decimals of the problem. An answer then counts if it rounds (half away from zero) to the reference.
    """
    if answer.kind == reference.kind == "number":
        return _equal_numbers(answer, reference, precision)
    if answer.kind == reference.kind == "ratio":
        return _proportional([item.number for item in answer.items], [item.number for item in reference.items])
    if "sequence" in (answer.kind, reference.kind):
        return _equal_sequences(answer, reference, precision)
    if "ratio" in (answer.kind, reference.kind) or _units_differ(answer, reference):
        return False
    return True if answer.text == reference.text else None


def _units_differ(answer: Value, reference: Value) -> bool:
    return bool(
        answer.unit and reference.unit and answer.unit != reference.unit and "unit" not in answer.unit + reference.unit
    )


def _equal_numbers(answer: Value, reference: Value, precision: int | None) -> bool:
    left, right = answer.number, reference.number
    assert left is not None and right is not None
    if _units_differ(answer, reference):
        return False
    decimal = answer.decimal or reference.decimal
    if answer.unit == "%" and not reference.unit and _close(left / 100, right, decimal):
        return True
    if reference.unit == "%" and not answer.unit and _close(left, right / 100, decimal):
        return True
    if precision is not None:
        return _rounded(left, precision) == _rounded(right, precision)
    return _close(left, right, decimal)


def _close(left: Fraction, right: Fraction, decimal: bool) -> bool:
    return left == right or (decimal and abs(left - right) <= RELATIVE_TOLERANCE * abs(right))


def _rounded(number: Fraction, digits: int) -> int:
    scaled = abs(number) * 10**digits
    rounded = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return rounded if number >= 0 else -rounded


def _proportional(left: list[Fraction | None], right: list[Fraction | None]) -> bool:
    """Whether two ratios are proportional (1:2 equals 2:4). A part that is 0 must be 0 on both sides."""
    pairs = [(a, b) for a, b in zip(left, right, strict=False) if a is not None and b is not None]
    factors = {a / b if b else None for a, b in pairs if a or b}
    return len(left) == len(right) == len(pairs) and len(factors) == 1 and factors.isdisjoint({None, Fraction(0)})


def _equal_sequences(answer: Value, reference: Value, precision: int | None) -> bool | None:
    if answer.kind != reference.kind or len(answer.items) != len(reference.items):
        return False
    if len(reference.items) == 2 and len({answer.brackets, reference.brackets} - {""}) == 2:
        return False  # two parts may be an interval: (1, 2] is not [1, 2]
    results = [equal(a, b, precision) for a, b in paired(answer, reference)]
    return False if False in results else None if None in results else True


def paired(answer: Value, reference: Value) -> list[tuple[Value, Value]]:
    """The parts of two sequences of equal length in pairs. The parts of a set are sorted first."""
    left, right = answer.items, reference.items
    if reference.brackets == "{}":
        left, right = _sorted(left), _sorted(right)
    return list(zip(left, right, strict=True))


def _sorted(items: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(sorted(items, key=lambda item: (item.number is None, item.number or 0, item.text)))
