"""Units at the end of an answer.

Changes of what counts as a unit need a new ``vold.answers.VERSION``.
"""

import re

_NAMES = {
    "%": "percent percents percentage",
    "degree": "degree degrees deg",
    "radian": "radian radians rad",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "inch": "inch inches",
    "foot": "ft foot feet",
    "mile": "mile miles",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "second": "s sec second seconds",
    "minute": "min minute minutes",
    "hour": "h hr hour hours",
    "day": "day days",
    "year": "year years",
    "euro": "euro euros",
    "dollar": "dollar dollars",
    "cent": "cent cents",
    "N": "N newton newtons",
    "J": "J joule joules",
    "W": "W watt watts",
    "unit": "unit units",
}
_KNOWN = {spelling: unit for unit, spellings in _NAMES.items() for spelling in spellings.split()}
_POWER_WORDS = {"square": "^2", "sq": "^2", "squared": "^2", "cubic": "^3", "cubed": "^3"}
_GLUED = {f"{word}{unit}": (unit, power) for word, power in _POWER_WORDS.items() for unit in _KNOWN if len(unit) > 1}
_NOT_UNITS = re.compile(
    "times|plus|minus|negative|more|less|fewer|greater|over|under|least|most|than|the|and|not|about|per|half|halves|twice"
    "|(?:dozen|hundred|thousand|million|billion|trillion|lakh|crore)s?|squared|cubed|factorial"
    "|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth)s?"
    "|sin|cos|tan|log|exp|sqrt|frac|mod|infty|max|min",
    re.IGNORECASE,
)
_POWER = re.compile(r"\^\s*\{?\s*([23])\s*\}?\s*$")
_SIGN = re.compile(r"(%|\\circ|€)[\s{}]*(?:[CF]\b)?$")
_WORD = re.compile(r"[A-Za-z]+")


def split(text: str, *, any_word: bool) -> tuple[str, str]:
    r"""The unit at the end of ``text`` ("" if there is none) and the amount before it.

    any_word: drop up to two unknown words too ("8 apples"). For expressions only known units may go, since a word
    could be a symbol. Text after a backslash is never a unit.
    """
    if sign := _SIGN.search(text):
        return {"%": "%", "€": "euro"}.get(sign[1], "degree"), text[: sign.start()].rstrip()
    power = _POWER.search(text)
    body = text[: power.start()] if power else text
    start = _tail(body)
    words = _WORD.findall(body[start:])
    if not words or not any(map(str.isalnum, body[:start])):
        return "", text
    unit = _name(words, spaced=body[start].isspace(), any_word=any_word)
    if unit is None or (power and not unit):
        return "", text
    return unit + (f"^{power[1]}" if power else ""), body[:start].rstrip()


def _tail(text: str) -> int:
    """Position at which the words at the end of ``text`` begin (letters, blanks, dots, slashes, balanced braces)."""
    start = len(text)
    while start and (text[start - 1].isalpha() or text[start - 1] in " ./{}"):
        start -= 1
    if start and text[start - 1] == "\\":  # the name of a command belongs to the amount
        while start < len(text) and text[start].isalpha():
            start += 1
    while text[start:].lstrip().startswith("}"):  # closes a group of the amount
        start = text.index("}", start) + 1
    return start


def _name(words: list[str], *, spaced: bool, any_word: bool) -> str | None:
    """The standard name of the unit, "" for words to drop, or None if the words are not a unit."""
    power = "".join(_POWER_WORDS[word] for word in words if word in _POWER_WORDS)[:2]
    words = [word for word in words if word not in _POWER_WORDS]
    if len(words) == 1 and words[0] in _GLUED:
        unit, power = _GLUED[words[0]]
        return _KNOWN[unit] + power
    if not words:
        return None  # "5 squared" is not 5
    units = [_KNOWN[word] for word in words if word in _KNOWN and (len(word) > 1 or spaced or any_word)]
    if units and len(units) == len(words):
        return "/".join(units) + power
    dropped = any_word and len(words) <= 2 and all(len(word) > 2 and not _NOT_UNITS.fullmatch(word) for word in words)
    return "" if dropped else None
