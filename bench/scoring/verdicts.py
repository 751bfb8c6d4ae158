"""The one entry to scoring: strict mode names every state and guesses nothing; official mode is what was published."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bench.records import STATES, Prediction, Problem, Response, Verdict
from bench.scoring.official import PROCEDURES
from vold.answers import spoken, verify

_REFUSAL = re.compile(
    r"\b(?:i\s+(?:can(?:no|')t|am\s+(?:unable|not\s+able)|won't)|i'm\s+(?:unable|not\s+able|sorry)|i\s+apologi[sz]e"
    r"|(?:cannot|can't|unable\s+to)\s+(?:answer|determine|view|see|solve|help|assist))\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 400


def score(problem: Problem, response: Response) -> Verdict:
    """Judge a response in strict mode.

    What stands between ``<think>`` and ``</think>`` is not read. A response that was cut off counts as ``truncated``
    unless it had declared its answer; an engine's failure is ``error`` with the engine's reason as method.
    """
    if response.finish_reason == "error":
        return Verdict(response.id, response.sample, "error", "", "", response.text)
    outcome = verify(response.text, problem.answer, problem.options, precision=problem.precision)
    state, method = outcome.state, outcome.method
    undeclared = state == "unparsed" or method.startswith("lone")
    if response.finish_reason == "length" and undeclared:
        return Verdict(response.id, response.sample, "truncated", "", "", "length")
    if state == "unparsed" and _REFUSAL.search(spoken(response.text)[:_REFUSAL_WITHIN].replace("’", "'")):
        return Verdict(response.id, response.sample, "refused", outcome.extracted, "", "refusal")
    return Verdict(response.id, response.sample, state, outcome.extracted, outcome.normalised, method)


def is_correct(
    benchmark: str, response: str, gold: str, options: Sequence[str] = (), *, precision: int | None = None
) -> bool:
    """Is one answer right in strict mode? Raises ConfigurationError for an unknown benchmark."""
    from bench.benchmarks import BENCHMARKS, DatasetError

    if benchmark not in BENCHMARKS:
        raise DatasetError(f"unknown benchmark {benchmark!r}; choose from {', '.join(BENCHMARKS)}")
    return verify(response, gold, options, precision=precision).correct


Mode = Literal["strict", "official"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Verdicts on predictions; ``missing`` are records that nothing was predicted for: never wrong, never hidden."""

    benchmark: str
    mode: Mode
    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...]

    @property
    def correct(self) -> int:
        return sum(verdict.correct for verdict in self.verdicts)

    @property
    def accuracy(self) -> float | None:
        """Over the predictions there are."""
        return self.correct / len(self.verdicts) if self.verdicts else None

    @property
    def states(self) -> dict[str, int]:
        counts = Counter(verdict.state for verdict in self.verdicts)
        return {state: counts[state] for state in STATES}

    @property
    def guessed(self) -> int:
        return sum(verdict.method == "guessed" for verdict in self.verdicts)

    def of(self, ids: Collection[str]) -> "Scores":
        """The scores of these problems alone."""
        verdicts = tuple(verdict for verdict in self.verdicts if verdict.id in ids)
        return replace(self, verdicts=verdicts, missing=tuple(id for id in self.missing if id in ids))

    def to_json(self) -> dict[str, Any]:
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
    """Judge ``predictions`` of ``problems``; raises KeyError for an id that is no problem's."""
    known = {problem.id: problem for problem in problems}
    judge = _strictly if mode == "strict" else _officially
    verdicts = tuple(judge(known[prediction.id], prediction) for prediction in predictions)
    asked = {verdict.id for verdict in verdicts}
    return Scores(benchmark, mode, verdicts, tuple(id for id in known if id not in asked))


def _strictly(problem: Problem, prediction: Prediction) -> Verdict:
    key = problem.benchmark, prediction.id, prediction.sample
    verdict = score(problem, Response(*key, prediction.response, 0, "stop"))
    if problem.options and verdict.normalised:
        return replace(verdict, extracted=verdict.normalised)
    return verdict


def _officially(problem: Problem, prediction: Prediction) -> Verdict:
    ruling = PROCEDURES[problem.benchmark](problem, prediction)
    return Verdict(prediction.id, prediction.sample, ruling.outcome, ruling.extracted, ruling.extracted, ruling.method)
