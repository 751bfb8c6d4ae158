r"""Exact values of arithmetic expressions in plain or LaTeX notation, without eval.

``value(r"\frac{3^{1008}-1}{3^{1009}}")`` is a Fraction. The value is None if it is not rational or too large to write
down. The number of tokens, the nesting and the bits of every result are limited. ``approximation`` also knows roots
and pi, to 40 digits.

Changes of what is computed here need a new ``vold.answers.VERSION``.
"""

import re
from fractions import Fraction
from math import isqrt

_TOKEN = re.compile(
    r"\s*(?:(\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?![\d.]))?|\.\d+)|(\\frac|\\sqrt|\\pi(?![a-zA-Z]))|([-+*/^(){}\[\]!]))"
)
_MAX_TOKENS = 400
_MAX_DEPTH = 40
_MAX_BITS = 1 << 15
_DIGITS = 10**40
_PI = Fraction(31415926535897932384626433832795028841971, _DIGITS)
_FACTORS = ("(", "{", r"\frac", r"\sqrt", r"\pi")
"""Tokens that may follow a factor without a sign between them."""


class _NotRational(Exception):
    """The expression has no exact value within the limits of this module."""


def value(text: str) -> Fraction | None:
    """The exact rational value of ``text``, or None."""
    return _parsed(_Parser, text)


def approximation(text: str) -> Fraction | None:
    r"""The value of ``text`` with irrational roots and pi cut off after 40 digits, or None.

    The LaTeX must be well-formed: the arguments of ``\frac`` and ``\sqrt`` must be in braces.
    """
    return _parsed(_Approximate, text)


def _parsed(parser_type: "type[_Parser]", text: str) -> Fraction | None:
    try:
        tokens = _tokens(text)
        if not tokens:
            return None
        parser = parser_type(tokens)
        result = parser.sum(0)
        return result if parser.at == len(tokens) else None
    except (_NotRational, ZeroDivisionError):
        return None


def _tokens(text: str) -> list[str]:
    tokens, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) >= _MAX_TOKENS:
            raise _NotRational
        tokens.append(match.group().strip())
        at = match.end()
    return tokens


def _small(number: Fraction) -> Fraction:
    if number.numerator.bit_length() > _MAX_BITS or number.denominator.bit_length() > _MAX_BITS:
        raise _NotRational
    return number


class _Parser:
    """Recursive descent: sum > product > sign > power > atom."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *tokens: str) -> str:
        """The next token if it is one of ``tokens``, otherwise the empty string."""
        token = self.peek()
        if token not in tokens or not token:
            return ""
        self.at += 1
        return token

    def sum(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise _NotRational
        total = self.product(depth)
        while sign := self.take("+", "-"):
            term = self.product(depth)
            total = _small(total + term if sign == "+" else total - term)
        return total

    def product(self, depth: int) -> Fraction:
        total = self.signed(depth)
        while True:
            if operator := self.take("*", "/"):
                factor = self.signed(depth)
                total = _small(total * factor if operator == "*" else total / factor)
            elif self.peek() in _FACTORS or (self._closed() and self.peek()[:1].isdigit()):
                total = _small(total * self.power(depth))  # juxtaposition
            else:
                return total

    def _closed(self) -> bool:
        """Whether a group has just ended. A number after it is a factor, as in ``2^{12} 13^2``."""
        return self.at > 0 and self.tokens[self.at - 1] in (")", "}", "]")

    def signed(self, depth: int) -> Fraction:
        negative = False
        while sign := self.take("+", "-"):
            negative ^= sign == "-"
        result = self.power(depth)
        return -result if negative else result

    def power(self, depth: int) -> Fraction:
        base = self.atom(depth + 1)
        if not self.take("^"):
            return base
        negative = bool(self.take("-"))
        exponent = self.atom(depth + 1)
        if self.peek() == "^" or exponent.denominator != 1:
            raise _NotRational
        times = -int(exponent) if negative else int(exponent)
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(times) * size > _MAX_BITS:
            raise _NotRational
        return _small(base**times)

    def argument(self, depth: int) -> Fraction:
        r"""One argument of a LaTeX command: a group, or the first digit of a number (``\frac12``)."""
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return Fraction(int(token[0]))
        return self.atom(depth)

    def atom(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise _NotRational
        token = self.peek()
        self.at += 1
        if token in ("(", "{", "["):
            inner = self.sum(depth + 1)
            if not self.take({"(": ")", "{": "}", "[": "]"}[token]):
                raise _NotRational
            return inner
        if token == r"\frac":
            top = self.argument(depth + 1)
            return _small(top / self.argument(depth + 1))
        if token == r"\sqrt":
            return self._root(depth)
        if token[:1].isdigit() or token[:1] == ".":
            if len(token) > 4_000:
                raise _NotRational
            number = Fraction(token.replace(",", ""))
            if token.isdigit() and self.peek() == r"\frac":  # a mixed number, as in 1\frac{1}{2}
                number += self.atom(depth + 1)
            return _small(number)
        raise _NotRational

    def _root(self, depth: int) -> Fraction:
        if self.peek() == "[":  # a root of another degree than 2
            raise _NotRational
        inside = self.argument(depth + 1)
        if inside < 0:
            raise _NotRational
        root = Fraction(isqrt(inside.numerator), isqrt(inside.denominator))
        return root if root * root == inside else self.irrational_root(inside)

    def irrational_root(self, inside: Fraction) -> Fraction:
        raise _NotRational


class _Approximate(_Parser):
    """Replaces irrational numbers by fractions with 40 correct digits."""

    def argument(self, depth: int) -> Fraction:
        if self.peek() != "{":
            raise _NotRational
        return self.atom(depth)

    def atom(self, depth: int) -> Fraction:
        return _PI if self.take(r"\pi") else super().atom(depth)

    def irrational_root(self, inside: Fraction) -> Fraction:
        return _small(Fraction(isqrt(inside.numerator * _DIGITS**2 // inside.denominator), _DIGITS))
