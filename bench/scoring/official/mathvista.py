"""MathVista's normalisation of an extracted answer and its comparison with the gold (lupantech/MathVista, evaluation).

The published extraction is a judge model's; without a stored one it is done by rule, and the method says so.
Faults that are kept: a choice that is not named goes to the nearest one by edit distance, so that an empty extraction
earns credit; integers are truncated (32.5 gives 32); lists compare as they are written. Published files of an older
version truncate nothing (``int("5.0")`` is refused there): ``int(float(...))`` is the present form.
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
    return Ruling.of(normalised.strip() == problem.answer.strip(), normalised, method)


def extract_mathvista(problem: Problem, response: str) -> tuple[str, str]:
    """(extraction, rule): the published short cuts, then the last declaration that strict mode reads."""
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
    """The answer in the gold's form; None where it has none."""
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
    if found := _LETTER.search(extraction):
        extraction = found[1].upper()
    place = ord(extraction) - ord("A") if len(extraction) == 1 else -1
    if 0 <= place < len(choices):
        return choices[place]
    return min(choices, key=lambda choice: Levenshtein.distance(extraction, choice))
