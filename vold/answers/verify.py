"""Is a response right? One entry for rewards and for benchmarks."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from vold.answers import labels as option_labels
from vold.answers import symbolic
from vold.answers.extract import Claim, claims
from vold.answers.text import LONGEST, clean
from vold.answers.thoughts import spoken
from vold.answers.values import Value, equal, parse

State = Literal["right", "wrong", "unparsed", "ambiguous"]

_SENTENCE = re.compile(
    r"(?<=[^\s])[.!?](?:\s|$)|\s(?:because|since|so|which|where|as|therefore|thus|but|with)\s|,\s(?:because|since|so|which|as)\s"
)
_LEADING_LABEL = re.compile(r"^\(?([A-Z])\)?(?=$|[\s.,:;)\]])(?!\s*['’])")
_ARTICLES = ("A", "I")
_FORMULA = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"[a-z]{3,}")
_KNOWN_WORDS = re.compile(r"sin|cos|tan|cot|sec|csc|log|exp|arc|deg|pi|sqrt|frac|mod|infty|max|min")
_ONE_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_ONE_LABEL = re.compile(r"(?<![\w'’])(?:\(([A-Z])\)|([A-Z]))(?![\w'’])(?!\s*['’])")
_SHORT = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """``extracted`` is what the response declares, ``normalised`` its one spelling, ``method`` the deciding rule."""

    state: State
    extracted: str = ""
    normalised: str = ""
    method: str = ""

    @property
    def correct(self) -> bool:
        return self.state == "right"


class _Gold(Protocol):
    def judge(self, claim: Claim) -> Outcome | None:
        """The verdict on a claim, or None where it cannot be read as an answer of this kind."""
        ...


def verify(response: str, answer: str, options: Sequence[str] = (), *, precision: int | None = None) -> Outcome:
    """Judge ``response`` against the gold ``answer``.

    options: the texts of a multiple-choice item, labelled A, B, ...; the gold is then a label or a text.
    Without options a gold such as ``C`` or ``A, C`` still names labels, of which A to I exist.
    precision: decimals to which a number must agree (MathVista); None compares exactly.
    Thoughts (``<think>``) are no part of the answer, whatever they declare.
    """
    gold = _gold(answer, options, precision)
    for claim in claims(spoken(response)):
        outcome = gold.judge(claim)
        if outcome is not None:
            return outcome
        if claim.method == "boxed":
            return Outcome("unparsed", claim.text[:LONGEST], "", "boxed")
    return Outcome("unparsed")


def labels_of_gold(answer: str, options: Sequence[str]) -> frozenset[str]:
    """The labels of the options that are right: the one that ``answer`` names, or all that read like it."""
    return option_labels.read(answer, option_labels.of(options), options) or option_labels.by_text(answer, options)


def _gold(answer: str, options: Sequence[str], precision: int | None) -> _Gold:
    if options:
        right = labels_of_gold(answer, options)
        if right:
            by_text = answer.strip() not in option_labels.of(options)
            return _Labels(right, option_labels.of(options), tuple(options), any_of=by_text)
    elif re.fullmatch(r"[A-I](?:\s*,\s*[A-I])*", answer.strip()):
        return _Labels(frozenset(re.findall("[A-I]", answer)), option_labels.DEFAULT_LABELS, (), any_of=False)
    return _Quantity(parse(answer), precision)


@dataclass(frozen=True, slots=True)
class _Labels:
    """A gold that is one label or a set of them; ``any_of``: a text that several options share."""

    right: frozenset[str]
    labels: tuple[str, ...]
    options: tuple[str, ...]
    any_of: bool

    def judge(self, claim: Claim) -> Outcome | None:
        named = self._read(claim)
        if not named:
            return None
        shown = ",".join(sorted(named))
        if named == self.right or (self.any_of and named <= self.right):
            state: State = "right"
        else:
            state = "ambiguous" if len(named) > 1 and (len(self.right) == 1 or self.any_of) else "wrong"
        return Outcome(state, claim.text, shown, claim.method)

    def _read(self, claim: Claim) -> frozenset[str]:
        attempts = [claim.text]
        if claim.method == "declared":
            attempts.append(_SENTENCE.split(claim.text, maxsplit=1)[0])
        for text in attempts:
            if named := option_labels.read(text, self.labels, self.options):
                return named
            same = option_labels.by_text(text, self.options)
            if same and (same <= self.right or len(same) > 1):
                return same
        if claim.method == "declared":
            return self._leading(clean(claim.text))
        return self._only(claim.text) if claim.method == "lone" else frozenset()

    def _leading(self, text: str) -> frozenset[str]:
        found = _LEADING_LABEL.match(re.sub(r"^(?:option|choice)\s+", "", text, flags=re.IGNORECASE))
        if not found or found[1] not in self.labels:
            return frozenset()
        rest = text[found.end() :]
        if found[1] in _ARTICLES and re.match(r"\s+[a-z]", rest) and "(" not in found.group():
            return frozenset()
        return frozenset((found[1],))

    def _only(self, text: str) -> frozenset[str]:
        """The one label that a short sentence names; "A" and "I" may be words."""
        if len(text) > _SHORT or "\n" in text:
            return frozenset()
        named = set()
        for found in _ONE_LABEL.finditer(text):
            letter = found[1] or found[2]
            if letter in self.labels and not (found[2] in _ARTICLES and re.match(r"\s+\w", text[found.end() :])):
                named.add(letter)
        return frozenset(named)


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A gold that is a number, a ratio, a sequence or an expression."""

    gold: Value | None
    precision: int | None

    def judge(self, claim: Claim) -> Outcome | None:
        if self.gold is None:
            return None
        value = self._read(claim)
        if value is None:
            return None
        same, method = equal(value, self.gold, self.precision), claim.method
        if same is None:
            same, how = symbolic.equal(value, self.gold)
            method = f"{method}+{how}"
        return Outcome("right" if same else "wrong", claim.text, value.text, method)

    def _read(self, claim: Claim) -> Value | None:
        if len(claim.text) > LONGEST:
            return None
        attempts = [claim.text]
        if claim.method == "declared":
            attempts += [_SENTENCE.split(claim.text, maxsplit=1)[0], _math(claim.text)]
        for text in attempts:
            value = parse(text)
            if value is not None and self._plausible(value, claim):
                return value
        if claim.method == "lone" and len(claim.text) <= _SHORT and "\n" not in claim.text:
            numbers = set(_ONE_NUMBER.findall(claim.text))
            return parse(numbers.pop()) if len(numbers) == 1 else None
        return None

    def _plausible(self, value: Value, claim: Claim) -> bool:
        """Prose is no answer, unless the gold is a word too."""
        if value.kind != "expression":
            return not any(item.kind == "expression" and _is_prose(item.text) for item in value.items)
        assert self.gold is not None
        if _is_prose(value.text):
            return value.text == self.gold.text
        return claim.method != "lone" or self.gold.kind == "expression"


def _math(text: str) -> str:
    r"""What stands between the first pair of ``$`` or ``\( \)``, or nothing."""
    found = re.search(r"\$([^$]+)\$|\\\((.+?)\\\)", text)
    return (found[1] or found[2]) if found else ""


def _is_prose(text: str) -> bool:
    return bool(_PROSE.search(_KNOWN_WORDS.sub("", _FORMULA.sub("", text))))
