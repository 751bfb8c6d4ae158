"""Scoring: strict mode names every state and never guesses; official mode follows the published procedures."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from bench.records import STATES, AnswerKind, Prediction, Problem, Response, Verdict
from bench.scoring.official import Procedure, find_procedure
from vold.answers import AnswerOutcome, spoken, verify, verify_text

_REFUSAL = re.compile(
    r"\b(?:i\s+(?:can(?:no|')t|am\s+(?:unable|not\s+able)|won't)|i'm\s+(?:unable|not\s+able|sorry)|i\s+apologi[sz]e"
    r"|(?:cannot|can't|unable\s+to)\s+(?:answer|determine|view|see|solve|help|assist))\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 400


def score(problem: Problem, response: Response) -> Verdict:
    """The verdict on a response in strict mode.

    Text between ``<think>`` and ``</think>`` is ignored. A response that was cut off is ``truncated``, unless it had
    declared its answer before. A failure of the engine is ``error``, with the engine's reason as the method.
    """
    if response.finish_reason == "error":
        return Verdict(response.id, response.sample, "error", "", "", response.text)
    outcome = _outcome(response.text, problem.answer, problem.options, problem.precision, problem.kind)
    state, method = outcome.state, outcome.method
    undeclared = state == "unparsed" or method.startswith("lone")
    if response.finish_reason == "length" and undeclared:
        return Verdict(response.id, response.sample, "truncated", "", "", "length")
    if state == "unparsed" and _REFUSAL.search(spoken(response.text)[:_REFUSAL_WITHIN].replace("’", "'")):
        return Verdict(response.id, response.sample, "refused", outcome.extracted, "", "refusal")
    return Verdict(response.id, response.sample, state, outcome.extracted, outcome.normalised, method)


def _outcome(
    response: str, answer: str, options: Sequence[str], precision: int | None, kind: AnswerKind
) -> AnswerOutcome:
    if kind == "text":
        return verify_text(response, answer)
    return verify(response, answer, options, precision=precision)


def is_correct(
    benchmark: str,
    response: str,
    gold: str,
    options: Sequence[str] = (),
    *,
    precision: int | None = None,
    kind: AnswerKind = "free",
) -> bool:
    """Whether an answer is right in strict mode. Raises DatasetError for an unknown benchmark."""
    from bench.benchmarks.registry import find_benchmark

    find_benchmark(benchmark)
    return _outcome(response, gold, options, precision, kind).correct


Mode = Literal["strict", "official"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Verdicts on predictions. ``missing`` has the ids without a prediction, which do not count as wrong."""

    benchmark: str
    mode: Mode
    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...]

    @property
    def correct(self) -> int:
        return sum(verdict.correct for verdict in self.verdicts)

    @property
    def accuracy(self) -> float | None:
        """Share of right predictions; missing ones do not count."""
        return self.correct / len(self.verdicts) if self.verdicts else None

    @property
    def states(self) -> dict[str, int]:
        counts = Counter(verdict.state for verdict in self.verdicts)
        return {state: counts[state] for state in STATES}

    @property
    def guessed(self) -> int:
        return sum(verdict.method == "guessed" for verdict in self.verdicts)

    def subset(self, ids: Collection[str]) -> "Scores":
        """The scores of these problems only."""
        verdicts = tuple(verdict for verdict in self.verdicts if verdict.id in ids)
        return replace(self, verdicts=verdicts, missing=tuple(id for id in self.missing if id in ids))

    def to_json(self) -> dict[str, object]:
        """The form that ``vold-bench score --out`` writes."""
        rows = [
            {"id": v.id, "sample": v.sample, "state": v.state, "extracted": v.extracted, "correct": v.correct,
             "method": v.method}
            for v in self.verdicts
        ]  # fmt: skip
        return {
            "benchmark": self.benchmark,
            "mode": self.mode,
            "n": len(self.verdicts),
            "correct": self.correct,
            "accuracy": self.accuracy,
            "states": self.states,
            "guessed": self.guessed,
            "missing": list(self.missing),
            "rows": rows,
        }


def score_predictions(
    benchmark: str, problems: Sequence[Problem], predictions: Iterable[Prediction], mode: Mode
) -> Scores:
    """Score ``predictions`` of ``problems``.

    Raises KeyError for an id without a problem, and ConfigurationError if the benchmark has no official scoring.
    """
    by_id = {problem.id: problem for problem in problems}
    rule = _strict_verdict if mode == "strict" else partial(_official_verdict, find_procedure(benchmark))
    verdicts = tuple(rule(by_id[prediction.id], prediction) for prediction in predictions)
    predicted = {verdict.id for verdict in verdicts}
    return Scores(benchmark, mode, verdicts, tuple(id for id in by_id if id not in predicted))


def _strict_verdict(problem: Problem, prediction: Prediction) -> Verdict:
    key = problem.benchmark, prediction.id, prediction.sample
    verdict = score(problem, Response(*key, prediction.response, 0, "stop"))
    if problem.options and verdict.normalised:
        return replace(verdict, extracted=verdict.normalised)
    return verdict


def _official_verdict(procedure: Procedure, problem: Problem, prediction: Prediction) -> Verdict:
    ruling = procedure(problem, prediction)
    return Verdict(prediction.id, prediction.sample, ruling.outcome, ruling.extracted, ruling.extracted, ruling.method)
