"""MathVista's normalisation and comparison of an extracted answer (lupantech/MathVista, evaluation).

The published extraction is by a judge model. If none is stored, a rule extracts the answer and the method starts with
``rule``.

Faults of the original that are kept: an extraction that names no choice becomes the nearest choice by edit distance, so
that even an empty extraction can be right. Integers are truncated (32.5 gives 32). Lists are compared as text. Files
published with an older version of the code do not truncate, because ``int("5.0")`` fails there; this is the current
version with ``int(float(...))``.
"""

import re

from rapidfuzz.distance import Levenshtein

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.answers import verify

_LETTER = re.compile(r"\(([a-zA-Z])\)")
_QUOTED = re.compile(r'The answer is "(.*)"\.')


def score_mathvista(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    extraction, method = (stored, "stored") if stored is not None else extract_mathvista(problem, prediction.response)
    normalised = normalise_mathvista(problem, extraction)
    if normalised is None:
        return Ruling("unparsed", "", method)
    return Ruling.from_comparison(normalised.strip() == problem.answer.strip(), normalised, method)


def extract_mathvista(problem: Problem, response: str) -> tuple[str, str]:
    """The extraction and its rule: first the published shortcuts, then the last declaration that strict mode finds."""
    if not response:
        return "", "rule:empty"
    if problem.kind == "choice" and response in problem.options:
        return response, "rule:choice"
    converted = {"integer": _integer, "float": _float}.get(problem.kind, lambda text: None)(response)
    if converted is not None:
        return converted, "rule:number"
    if quoted := _QUOTED.search(response):
        return quoted[1], "rule:quoted"
    outcome = verify(response, problem.answer, problem.options, precision=problem.precision)
    return (outcome.normalised if problem.kind == "choice" else outcome.extracted), "rule:declared"


def _integer(text: str) -> str | None:
    try:
        return str(int(text))
    except ValueError:
        return None


def _float(text: str) -> str | None:
    try:
        return str(float(text))
    except ValueError:
        return None


def normalise_mathvista(problem: Problem, extraction: str) -> str | None:
    """The answer in the form of the reference answer, or None if it cannot have this form."""
    if problem.kind == "choice":
        return _choice(problem.options, extraction.strip())
    try:
        if problem.kind == "integer":
            return str(int(float(extraction)))
        if problem.kind == "float":
            return str(round(float(extraction), problem.precision or 0))
    except (ValueError, OverflowError):
        return None
    return extraction


def _choice(choices: tuple[str, ...], extraction: str) -> str:
    if letter := _LETTER.search(extraction):
        extraction = letter[1].upper()
    index = ord(extraction) - ord("A") if len(extraction) == 1 else -1
    if 0 <= index < len(choices):
        return choices[index]
    return min(choices, key=lambda choice: Levenshtein.distance(extraction, choice))
