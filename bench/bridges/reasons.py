"""Explains why VLMEvalKit's verdict on a response differs from ours, by the first matching reason of a short list."""

from dataclasses import dataclass
from typing import Literal

from bench.records import Problem, Verdict
from vold.answers import labels as option_labels
from vold.answers import reference_labels
from vold.answers.values import parse

Reason = Literal[
    "judge", "guessed", "rounded", "nearest", "several", "undeclared", "ambiguous", "not_found", "same_texts",
    "gold_text", "spelling", "precision", "tolerance", "extraction", "unexplained",
]  # fmt: skip

MEANING: dict[Reason, str] = {
    "judge": "VLMEvalKit leaves it to a judge model",
    "guessed": "the official procedure draws a letter",
    "rounded": "the official procedure rounds to two decimals",
    "nearest": "the official procedure takes the option nearest by edit distance",
    "several": "the gold is a list or several letters, compared there as one text",
    "undeclared": "no answer is declared; there a letter, number or option in the prose counts",
    "ambiguous": "several answers are declared; there one of them counts",
    "not_found": "VLMEvalKit finds no answer of the kind it knows, which is wrong there",
    "same_texts": "several options have the gold's text",
    "gold_text": "the gold is an option's text, which VLMEvalKit compares with a letter",
    "spelling": "the same answer, but one side compares how it is written",
    "precision": "decimals that the item leaves open",
    "tolerance": "values within 1e-6 are equal there, whatever their exact values",
    "extraction": "another answer is extracted",
    "unexplained": "none of these",
}


@dataclass(frozen=True, slots=True)
class Theirs:
    """VLMEvalKit's verdict. ``right`` is None if only a judge model could decide."""

    extracted: str
    right: bool | None


def reason(problem: Problem, ours: Verdict, theirs: Theirs) -> Reason | None:
    """Why the two verdicts differ, or None if they agree."""
    if theirs.right is None:
        return "judge"
    if theirs.right == ours.correct:
        return None
    if ours.method in ("guessed", "rounded"):
        return ours.method  # type: ignore[return-value]
    if problem.kind in ("list", "choices"):
        return "several"
    if ours.state == "ambiguous":
        return "ambiguous"
    if ours.state != "right" and ours.state != "wrong":
        return "undeclared"
    return _of_choice(problem, ours, theirs) if problem.options else _of_value(problem, ours, theirs)


def _of_choice(problem: Problem, ours: Verdict, theirs: Theirs) -> Reason:
    labels = option_labels.of(problem.options)
    if theirs.extracted not in labels:
        nearest = problem.benchmark == "mathvista" and ours.method.startswith(("stored", "rule"))
        return "nearest" if nearest and ours.correct else "not_found"
    if len(reference_labels(problem.answer, problem.options)) > 1:
        return "same_texts"
    if option_labels.read(ours.extracted, labels, problem.options) != {theirs.extracted}:
        return "extraction"
    if ours.normalised in labels:
        return "unexplained" if problem.answer.strip() in labels else "gold_text"
    return "spelling"


def _of_value(problem: Problem, ours: Verdict, theirs: Theirs) -> Reason:
    value = parse(theirs.extracted)
    if value is None:
        return "not_found"
    if value.text != (own.text if (own := parse(ours.extracted)) else ""):
        return "extraction"
    if not ours.correct:
        return "tolerance" if problem.benchmark == "mathvision" else "unexplained"
    return "precision" if problem.precision is not None else "spelling"
