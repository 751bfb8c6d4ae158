"""MMMU-Pro's parser of option letters (MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py).

Faults that are kept: the letter after the last "Answer:" is any option letter that occurs there, in a word too; "X " is
looked for without a word boundary before it ("A dramatic" gives A, "NBA " as well); of several "X." candidates the last
is found by looking for " X ", which rarely stands there, so that the first one wins; where nothing is found a letter is
drawn. The draw is declared (``guessed``) and seeded by the item's id, sample and response; the published one is not.
"""

import string
from collections.abc import Mapping, Sequence

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.seeding import generator

_ANSWER = "Answer:"
_PUNCTUATION = ",.!?;:'"
_SHORT = 5
"""Responses of at most this many words are not searched for an option's text."""


def score_mmmu_pro(problem: Problem, prediction: Prediction) -> Ruling:
    options = dict(zip(string.ascii_uppercase, problem.options, strict=False))
    letter, method = find_letter(prediction.response, options)
    if not letter:
        method = "guessed"
        stream = generator(0, "mmmu_pro", prediction.id, prediction.sample, prediction.response)
        letter = str(stream.choice(list(options))) if options else ""
    return Ruling.of(letter == problem.answer, letter, method)


def find_letter(response: str, options: Mapping[str, str]) -> tuple[str, str]:
    """(letter, rule) of a response; the letter is "" where the published parser draws one."""
    _, declared, tail = response.rpartition(_ANSWER)
    named = [letter for letter in options if declared and letter in tail]
    if len(named) == 1:
        return named[0], "declared"
    for character in _PUNCTUATION:
        response = response.strip(character)
    response = f" {response} "
    for rule, written in (("brackets", "({})"), ("letter", "{} "), ("point", "{}.")):
        found = [letter for letter in options if written.format(letter) in response]
        if found:
            searched = written if rule == "brackets" else " {} "
            return _last(found, [response.rfind(searched.format(letter)) for letter in found]), rule
    if len(response.split()) > _SHORT:
        lower = response.lower()
        found = [letter for letter, text in options.items() if text.lower() in lower]
        if found:
            return _last(found, [lower.rfind(options[letter].lower()) for letter in found]), "text"
    return "", ""


def _last(letters: Sequence[str], places: Sequence[int]) -> str:
    """The letter whose place is the last; of equal ones (none of them found, -1) the first."""
    return letters[max(range(len(letters)), key=lambda index: (places[index], -index))]
