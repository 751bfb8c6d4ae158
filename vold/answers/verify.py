"""Judges responses against reference answers, both for rewards and for benchmarks.

Changes of any verdict here need a new ``vold.answers.VERSION``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from vold.answers import labels as option_labels
from vold.answers import symbolic
from vold.answers.extract import Claim, claims
from vold.answers.text import LONGEST, clean
from vold.answers.thoughts import spoken
from vold.answers.values import Value, equal, parse

AnswerState = Literal["right", "wrong", "unparsed", "ambiguous"]

_SENTENCE = re.compile(
    r"(?<=[^\s])[.!?](?:\s|$)|\s(?:because|since|so|which|where|as|therefore|thus|but|with)\s|,\s(?:because|since|so|which|as)\s"
)
_LEADING_LABEL = re.compile(r"^\(?([A-Z])\)?(?=$|[\s.,:;?!)\]])(?!\s*['’])")
_KIND = re.compile(r"^(?:option|choice)\s+", re.IGNORECASE)
_JOINED = re.compile(r"\s+(?:or|and|to|nor|if)\b")
_ARTICLES = ("A", "I")
_FORMULA = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"[a-z]{3,}")
_KNOWN_WORDS = re.compile(r"sin|cos|tan|cot|sec|csc|log|exp|arc|deg|pi|sqrt|frac|mod|infty|max|min")
_ONE_NUMBER = re.compile(r"-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_DENIES = re.compile(
    r"\b(?:not|cannot|never|no|none|neither|nor|except|eliminat\w*|exclud\w*|rul(?:e|es|ed|ing)\s+(?:it\s+)?out|wrong|incorrect|false)\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)
_CHANGED_BEFORE = re.compile(
    r"(?:\b(?:negative|minus|plus|times|twice|half|least|most|over|under|above|below|between|from|or|up\s+to"
    r"|(?:more|less|fewer|greater|higher|lower|larger|smaller|bigger)\s+than)|[\^√<>≤≥≠±]|\\(?:sqrt|frac|le|ge|leq|geq|ne|neq|pm))[\s${(]*$",
    re.IGNORECASE,
)
_CHANGED_AFTER = re.compile(
    r"[\s$})]*(?:(?:or|nor|times|plus|minus|half|more|less|fewer|squared|cubed|factorial"
    r"|(?:dozen|hundred|thousand|million|billion|trillion|lakh|crore)s?)\b|[\^√π!<>≤≥≠±]|\\(?:pi|sqrt)(?![a-z]))",
    re.IGNORECASE,
)
"""Words and signs next to a number that change the amount."""
_REASON = re.compile(
    r"\b(?:because|since|as|which|where|so|therefore|thus|not|neither|cannot|eliminat\w*|exclud\w*)\b|n['’]t\b",
    re.IGNORECASE,
)
"""Words that start a reason. Labels after one of them are not part of the answer."""
_HEDGED = re.compile(
    r"(?:^\s*to|\b(?:or|nor|but|no|otherwise|else|maybe|perhaps|possibly|wait|actually))\b[\s,.:(]{1,3}"
    r"(?:(?:possibly|maybe|perhaps|even|else|rather|wait|actually|no|it|is|it's|the|answer|option|choice)\b[\s,.:(]{1,3}){0,4}"
    r"([A-Z])(?![\w'’])"
    r"|(?<![\w'’])([A-Z])\)?\s{1,2}(?:(?:is|could|may|might|would)\s{1,2})?(?:be\s{1,2})?(?:also|too|possible|possibly|as\s+well)\b",
    re.IGNORECASE,
)
_RULED_OUT = re.compile(
    r"(?:\b(?:not|never|nor|neither|except)\b|n['’]t\b)[\s,.:(]{1,3}"
    r"(?:(?:be|is|the|an?|answer|option|choice)\b[\s,.:(]{1,3}){0,3}(?-i:([A-Z]))(?![\w'’])",
    re.IGNORECASE,
)
_ONE_LABEL = re.compile(r"(?<![\w'’])(?:\(([A-Z])\)|([A-Z]))(?![\w'’])(?!\s*['’])")
_SHORT = 120


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """The verdict on one response.

    extracted: the text that the response declares as its answer.
    normalised: its normalised spelling.
    method: the rule that decided.
    """

    state: AnswerState
    extracted: str = ""
    normalised: str = ""
    method: str = ""

    @property
    def correct(self) -> bool:
        return self.state == "right"


class _Reference(Protocol):
    def judge(self, claim: Claim) -> AnswerOutcome | None:
        """The verdict on a claim, or None if it cannot be read as an answer of this kind."""
        ...


def verify(response: str, answer: str, options: Sequence[str] = (), *, precision: int | None = None) -> AnswerOutcome:
    """Judge ``response`` against the reference answer ``answer``.

    options: the texts of a multiple-choice problem, labelled A, B, ... The reference answer is then a label or a text.
    Without options, a reference answer such as ``C`` or ``A, C`` still names labels, from A to I.
    precision: decimals to which a number must agree (MathVista). None compares exactly.

    Thoughts (``<think>``) are ignored.
    """
    reference = _read_reference(answer, tuple(options), precision)
    for claim in claims(spoken(response)):
        outcome = reference.judge(claim)
        if outcome is not None:
            return outcome
        if claim.method == "boxed":
            return AnswerOutcome("unparsed", claim.text[:LONGEST], "", "boxed")
    return AnswerOutcome("unparsed")


def reference_labels(answer: str, options: Sequence[str]) -> frozenset[str]:
    """The labels of the right options: the one that ``answer`` names, or all whose text equals it."""
    return option_labels.read(answer, option_labels.of(options), options) or option_labels.by_text(answer, options)


@lru_cache(maxsize=1 << 12)  # responses to the same problem come one after another
def _read_reference(answer: str, options: tuple[str, ...], precision: int | None) -> _Reference:
    if options:
        right = reference_labels(answer, options)
        if right:
            by_text = answer.strip() not in option_labels.of(options)
            return _Labels(right, option_labels.of(options), options, any_of=by_text)
    elif re.fullmatch(r"[A-I](?:\s*,\s*[A-I])*", answer.strip()):
        return _Labels(frozenset(re.findall("[A-I]", answer)), option_labels.DEFAULT_LABELS, (), any_of=False)
    return _Quantity(parse(answer), precision)


@dataclass(frozen=True, slots=True)
class _Labels:
    """A reference answer that is one label or a set of them.

    any_of: the reference answer is a text that several options may share; any of them is right.
    """

    right: frozenset[str]
    labels: tuple[str, ...]
    options: tuple[str, ...]
    any_of: bool

    def judge(self, claim: Claim) -> AnswerOutcome | None:
        named = self._read(claim)
        if not named or (claim.method == "boxed" and self._rules_out(claim, named)):
            return None
        named |= self._hedges(claim, named)
        normalised = ",".join(sorted(named))
        if named == self.right or (self.any_of and named <= self.right):
            state: AnswerState = "right"
        else:
            state = "ambiguous" if len(named) > 1 and (len(self.right) == 1 or self.any_of) else "wrong"
        return AnswerOutcome(state, claim.text, normalised, claim.method)

    def _read(self, claim: Claim) -> frozenset[str]:
        attempts = [claim.text]
        if claim.method == "declared":
            attempts.append(_SENTENCE.split(claim.text, maxsplit=1)[0])
        for text in attempts:
            if named := option_labels.read(text, self.labels, self.options):
                return named
            matches = option_labels.by_text(text, self.options)
            if matches and (matches <= self.right or len(matches) > 1):
                return matches
        if claim.method == "declared":
            return self._leading(clean(claim.text))
        return self._only(claim.text) if claim.method == "lone" else frozenset()

    def _leading(self, text: str) -> frozenset[str]:
        """The label at the start of ``text``, with those that follow if it may be the word "A" or "I"."""
        match = _LEADING_LABEL.match(_KIND.sub("", text))
        if not match or match[1] not in self.labels:
            return frozenset()
        named, rest = frozenset((match[1],)), match.string[match.end() :]
        if match[1] in _ARTICLES and re.match(r"\s+[a-z]", rest) and "(" not in match.group():
            others = self._doubted(rest) if _JOINED.match(rest) else frozenset[str]()
            return named | others if others else frozenset()
        return named

    def _only(self, text: str) -> frozenset[str]:
        """The labels that a short sentence names. "A" and "I" may be words, but not in "A or B"."""
        if len(text) > _SHORT or "\n" in text:
            return frozenset()
        text, named, words = _undenied(text), set[str](), set[str]()
        for match in _ONE_LABEL.finditer(text):
            letter, rest = match[1] or match[2], text[match.end() :]
            if letter not in self.labels:
                continue
            may_be_word = match[2] in _ARTICLES and re.match(r"\s+\w", rest)
            if not may_be_word:
                named.add(letter)
            elif _JOINED.match(rest):
                words.add(letter)
        return frozenset(named | words if named else named)

    def _hedges(self, claim: Claim, named: frozenset[str]) -> frozenset[str]:
        """Other labels in the claim's line, after the named one: "A, but B also possible", "A? No, B"."""
        text = self._without_options(claim, named)
        match = _LEADING_LABEL.match(_KIND.sub("", text))
        return self._doubted(match.string[match.end() :]) if match and {match[1]} == named else frozenset()

    def _rules_out(self, claim: Claim, named: frozenset[str]) -> bool:
        r"""Whether a box denies other labels. ``\boxed{A, not B}`` is not an answer but a sentence about two."""
        denied = {match[1] for match in _RULED_OUT.finditer(self._without_options(claim, named))}
        return not denied.isdisjoint(self.labels)

    def _without_options(self, claim: Claim, named: frozenset[str]) -> str:
        """The claim's first line without the texts of the named options, which may mention other labels."""
        text = clean(claim.text.partition("\n")[0])
        for label, option in zip(self.labels, self.options, strict=False):
            if label in named and (option := clean(option)):
                text = text.replace(option, " ")
                if len(option) > 1 and option.lower() in text.lower():  # a single letter may be a label
                    text = re.sub(re.escape(option), " ", text, flags=re.IGNORECASE)
        return text

    def _doubted(self, rest: str) -> frozenset[str]:
        """The labels that follow a leading one after a word of doubt."""
        rest = _REASON.split(rest, maxsplit=1)[0][:_SHORT]
        others = {match[1] or match[2] for match in _HEDGED.finditer(rest)}
        return frozenset(others.intersection(self.labels))


@dataclass(frozen=True, slots=True)
class _Quantity:
    """A reference answer that is a number, a ratio, a sequence or an expression."""

    reference: Value | None
    precision: int | None

    def judge(self, claim: Claim) -> AnswerOutcome | None:
        if self.reference is None:
            return None
        value = self._read(claim)
        if value is None:
            return None
        is_equal, method = equal(value, self.reference, self.precision), claim.method
        if is_equal is None:
            is_equal, rule = symbolic.equal(value, self.reference)
            method = f"{method}+{rule}"
        return AnswerOutcome("right" if is_equal else "wrong", claim.text, value.text, method)

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
            text = _undenied(claim.text)
            numbers = list(_ONE_NUMBER.finditer(text))
            if len({match.group() for match in numbers}) == 1 and not all(_changed(text, match) for match in numbers):
                return parse(numbers[0].group())
        return None

    def _plausible(self, value: Value, claim: Claim) -> bool:
        """Whether the value may be an answer. Prose may not, unless the reference answer is a word too."""
        if value.kind != "expression":
            return not any(item.kind == "expression" and _is_prose(item.text) for item in value.items)
        assert self.reference is not None
        if _is_prose(value.text):
            return value.text == self.reference.text
        return claim.method != "lone" or self.reference.kind == "expression"


def _math(text: str) -> str:
    r"""The text between the first pair of ``$`` or ``\( \)``, or nothing."""
    match = re.search(r"\$([^$]+)\$|\\\((.+?)\\\)", text)
    if not match:
        return ""
    denied = _DENIES.search(text[: match.start()]) or _changed(text, match)
    return "" if denied else (match[1] or match[2])


def _changed(text: str, number: re.Match[str]) -> bool:
    """Whether the words next to a number change the amount."""
    before, after = text[: number.start()], text[number.end() :]
    return bool(_CHANGED_BEFORE.search(before[-_SHORT:]) or _CHANGED_AFTER.match(after))


def _undenied(text: str) -> str:
    """The text after the last sentence that denies something.

    That is "B" in "No, it is not larger. B", and nothing in "It is not B".
    """
    sentences = re.split(r"(?<=[.!?])\s+", text)
    denying = [index for index, sentence in enumerate(sentences) if _DENIES.search(sentence)]
    return " ".join(sentences[denying[-1] + 1 :] if denying else sentences)


def _is_prose(text: str) -> bool:
    return bool(_PROSE.search(_KNOWN_WORDS.sub("", _FORMULA.sub("", text))))
