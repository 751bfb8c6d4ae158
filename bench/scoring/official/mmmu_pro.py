"""MMMU-Pro's parser of option letters (MMMU-Benchmark/MMMU, mmmu-pro/evaluate.py).

Faults of the original that are kept:

- After the last "Answer:", any option letter counts, even inside a word.
- "X " needs no word boundary before it. "A dramatic" gives A, and so does "NBA ".
- The last of several "X." candidates is searched as " X ", which is rarely there. The first candidate therefore wins.
- If nothing is found, the letter is random. Here the method is then ``guessed``, and the draw depends on the problem's
  id, the sample and the response. The published draw has no seed.
"""

import string
from collections.abc import Mapping, Sequence

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.seeding import generator

_ANSWER = "Answer:"
_PUNCTUATION = ",.!?;:'"
_SHORT = 5
"""Responses with at most this many words are not searched for the text of an option."""


def score_mmmu_pro(problem: Problem, prediction: Prediction) -> Ruling:
    options = dict(zip(string.ascii_uppercase, problem.options, strict=False))
    letter, method = find_letter(prediction.response, options)
    if not letter:
        method = "guessed"
        stream = generator(0, "mmmu_pro", prediction.id, prediction.sample, prediction.response)
        letter = str(stream.choice(list(options))) if options else ""
    return Ruling.from_comparison(letter == problem.answer, letter, method)


def find_letter(response: str, options: Mapping[str, str]) -> tuple[str, str]:
    """The letter in a response and the rule. The letter is empty if the published parser would draw one."""
    _, declared, tail = response.rpartition(_ANSWER)
    named = [letter for letter in options if declared and letter in tail]
    if len(named) == 1:
        return named[0], "declared"
    for character in _PUNCTUATION:
        response = response.strip(character)
    response = f" {response} "
    for rule, written in (("brackets", "({})"), ("letter", "{} "), ("point", "{}.")):
        letters = [letter for letter in options if written.format(letter) in response]
        if letters:
            searched = written if rule == "brackets" else " {} "
            return _last(letters, [response.rfind(searched.format(letter)) for letter in letters]), rule
    if len(response.split()) > _SHORT:
        lower = response.lower()
        letters = [letter for letter, text in options.items() if text.lower() in lower]
        if letters:
            return _last(letters, [lower.rfind(options[letter].lower()) for letter in letters]), "text"
    return "", ""


def _last(letters: Sequence[str], positions: Sequence[int]) -> str:
    """The letter with the last position; the first of several with the same position, which is -1 if not found."""
    return letters[max(range(len(letters)), key=lambda index: (positions[index], -index))]
