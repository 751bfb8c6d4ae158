"""What an answer is: a number with its unit, a ratio, a sequence, or an expression; and when two are equal.

Numbers compare exactly as rationals. Where either side is written as a decimal, a relative difference of
1e-6 is allowed, or the item's own precision. Ratios, tuples, sets and intervals compare part by part, so
that no symbolic library ever sees them.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from vold.answers import arithmetic
from vold.answers.text import clean

RELATIVE_TOLERANCE = Fraction(1, 10**6)
_MAX_ITEMS = 64
_CLOSING = {"(": ")", "[": "]", "{": "}"}

_UNIT_NAMES = {
    "%": "% percent percents percentage",
    "degree": r"\circ degree degrees deg",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "inch inches",
    "foot": "ft foot feet",
    "mile": "mile miles",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "s": "s sec second seconds",
    "minute": "min minute minutes",
    "hour": "h hr hour hours",
    "day": "day days",
    "year": "year years",
    "euro": "euro euros €",
    "dollar": "dollar dollars",
    "cent": "cent cents",
    "N": "N newton newtons",
    "J": "J joule joules",
    "W": "W watt watts",
    "unit": "unit units",
}
_UNITS = {spelling: unit for unit, spellings in _UNIT_NAMES.items() for spelling in spellings.split()}
_POWERS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cubed": "^3"}

_UNIT_TAIL = re.compile(
    r"(?P<tail>\s*(?:%|\\circ|€|(?:[{ ]\s*|(?<=[\d)}]))(?:(?:square|sq\.?|cubic)\s*)?[A-Za-zµ]+(?:[ /][A-Za-z]+){0,3}(?:\s*\^\s*\{?[23]\}?)?)\s*\}?)$"
)
_NUMERIC = re.compile(r"[\d.]")
_RELATION = re.compile(r"^[A-Za-z](?:_\{?\w{1,4}\}?)?(?:\([A-Za-z]\))?\s*=")
_RATIO = re.compile(r"^([^:]+?)\s*(?::|\bto\b)\s*([^:]+?)(?:\s*:\s*([^:]+?))?$")


@dataclass(frozen=True, slots=True)
class Value:
    """A normalised answer. ``text`` is its one spelling; ``number`` its exact rational value, if it has one."""

    kind: Literal["number", "ratio", "sequence", "expression"]
    text: str
    number: Fraction | None = None
    decimal: bool = False
    unit: str = ""
    brackets: str = ""
    items: tuple["Value", ...] = ()


def parse(text: str) -> Value | None:
    """Normalise one answer; None where nothing is left."""
    return _parse(clean(text).strip(" .;,:"), 0)


def _parse(text: str, depth: int) -> Value | None:
    text = text.strip()
    if text.startswith("\\{") and text.endswith("\\}"):
        text = "{" + text[2:-2] + "}"
    if not text or depth > 4:
        return None
    text = _RELATION.sub("", text).strip() or text
    number = _number(text)
    if number is not None:
        return number
    return _sequence(text, depth) or _ratio(text, depth) or Value("expression", _canonical(text))


def _number(text: str) -> Value | None:
    unit, amount = _split_unit(text)
    if text.startswith("\\$") or text.startswith("$"):
        unit, amount = "dollar", text.lstrip("\\$")
    number = arithmetic.value(amount)
    if number is None:
        return None
    shown = f"{number}" if number.denominator.bit_length() + number.numerator.bit_length() < 400 else _canonical(amount)
    return Value("number", shown + unit, number, decimal="." in amount or "e" in amount.lower().replace(r"\frac", ""), unit=unit)


def _split_unit(text: str) -> tuple[str, str]:
    """(unit, what stands before it); an unknown word is dropped like a unit without a name."""
    found = _UNIT_TAIL.search(text)
    if found is None or not _NUMERIC.search(text[: found.start()]):
        return "", text
    words = re.findall(r"[A-Za-zµ]+|%|\\circ|€|\^\s*\{?[23]", found["tail"].replace("{", " "))
    power = next((_POWERS[word.rstrip(".")] for word in words if word.rstrip(".") in _POWERS), "")
    joined = "".join(words).lower()
    if joined.startswith(("square", "cubic")):  # 8\sqrt{3}{squareinches}
        power = _POWERS["square" if joined.startswith("square") else "cubic"]
        words = [joined.removeprefix("square").removeprefix("cubic")]
    known = next((_UNITS[word] for word in words if word in _UNITS), "")
    exponent = re.search(r"\^\s*\{?([23])", found["tail"])
    power = f"^{exponent.group(1)}" if exponent else power
    return (known + power if known else ""), text[: found.start()].rstrip(" {")


def _ratio(text: str, depth: int) -> Value | None:
    found = _RATIO.match(text)
    if found is None:
        return None
    items = tuple(_parse(part, depth + 1) for part in found.groups() if part is not None)
    if any(item is None or item.number is None or item.unit for item in items):
        return None
    parts = tuple(item for item in items if item is not None)
    return Value("ratio", ":".join(item.text for item in parts), items=parts)


def _sequence(text: str, depth: int) -> Value | None:
    brackets, inner = "", text
    if text[0] in _CLOSING and text[-1] in ")]}" and _encloses(text):
        brackets, inner = text[0] + text[-1], text[1:-1]
    parts = _split(inner)
    if len(parts) == 1 and not brackets:
        parts = re.split(r"\s+and\s+", inner)
    if len(parts) < 2 or len(parts) > _MAX_ITEMS:
        if brackets and len(parts) == 1:
            return _parse(inner, depth + 1)
        return None
    items = tuple(item for part in parts if (item := _parse(part.removeprefix(" and "), depth + 1)) is not None)
    if len(items) != len(parts):
        return None
    opening, closing = (brackets[0], brackets[1]) if brackets else ("", "")
    return Value("sequence", f"{opening}{','.join(item.text for item in items)}{closing}", brackets=brackets, items=items)


def _encloses(text: str) -> bool:
    """Does the first bracket close with the last character and not before? Intervals may mix brackets."""
    level = 0
    for at, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if level == 0:
            return at == len(text) - 1
    return False


def _split(text: str) -> list[str]:
    """Split at commas and semicolons outside brackets; a thousands separator is no comma."""
    parts, level, start = [], 0, 0
    for at, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if character in ",;" and level == 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _canonical(text: str) -> str:
    text = re.sub(r"\s+", "", text)
    text = re.sub(r"\\(frac|sqrt)(\d)(?!\d|\{)", r"\\\1{\2}", text)
    return text.replace(r"\cdot", "*").casefold()


def equal(answer: Value, gold: Value, precision: int | None = None) -> bool | None:
    """Is ``answer`` the same as ``gold``? None: only a symbolic comparison can tell.

    precision: decimals of the item; an answer then counts when it rounds (half away from zero) to the gold.
    """
    if answer.kind == gold.kind == "number" and answer.number is not None and gold.number is not None:
        return _equal_numbers(answer, gold, precision)
    if answer.kind == gold.kind == "ratio":
        return _proportional(answer, gold)
    if "sequence" in (answer.kind, gold.kind):
        return _equal_sequences(answer, gold, precision)
    if "ratio" in (answer.kind, gold.kind):
        return False
    return True if answer.text == gold.text else None


def _equal_numbers(answer: Value, gold: Value, precision: int | None) -> bool:
    left, right = answer.number, gold.number
    assert left is not None and right is not None
    if answer.unit and gold.unit and answer.unit != gold.unit:
        return False
    if "%" in (answer.unit, gold.unit) and answer.unit != gold.unit and _close(
        left / 100 if answer.unit else left, right / 100 if gold.unit else right, answer.decimal or gold.decimal
    ):
        return True
    if precision is not None:
        return _rounded(left, precision) == _rounded(right, precision)
    return _close(left, right, answer.decimal or gold.decimal)


def _close(left: Fraction, right: Fraction, decimal: bool) -> bool:
    return left == right or (decimal and abs(left - right) <= RELATIVE_TOLERANCE * abs(right))


def _rounded(number: Fraction, digits: int) -> int:
    scaled = abs(number) * 10**digits
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return whole if number >= 0 else -whole


def _proportional(answer: Value, gold: Value) -> bool:
    left = [item.number or Fraction(0) for item in answer.items]
    right = [item.number or Fraction(0) for item in gold.items]
    if len(left) != len(right) or not any(left) or not any(right):
        return False
    return all(a * right[0] == b * left[0] for a, b in zip(left, right, strict=True)) and bool(left[0]) == bool(right[0])


def _equal_sequences(answer: Value, gold: Value, precision: int | None) -> bool | None:
    if answer.kind != gold.kind or len(answer.items) != len(gold.items):
        return False
    brackets = {answer.brackets, gold.brackets} - {""}
    if len(gold.items) == 2 and len(brackets) == 2:  # (1, 2] is not [1, 2]: two parts may be an interval
        return False
    pairs = list(zip(answer.items, gold.items, strict=True))
    if gold.brackets == "{}":
        key = lambda item: (item.number is None, item.number or 0, item.text)  # noqa: E731
        pairs = list(zip(sorted(answer.items, key=key), sorted(gold.items, key=key), strict=True))
    results = [equal(left, right, precision) for left, right in pairs]
    return False if False in results else None if None in results else True
