"""The one entry to scoring a response: strict mode, deterministic, with every state named and nothing guessed."""

import re
from collections.abc import Sequence

from bench.records import Problem, Response, Verdict
from vold.answers import verify

_REFUSAL = re.compile(
    r"\b(?:i\s+(?:can(?:no|')t|am\s+(?:unable|not\s+able)|won't)|i'm\s+(?:unable|not\s+able|sorry)|i\s+apologi[sz]e"
    r"|(?:cannot|can't|unable\s+to)\s+(?:answer|determine|view|see|solve|help|assist))\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 400


def score(problem: Problem, response: Response) -> Verdict:
    """Judge a response in strict mode.

    A response that was cut off counts as ``truncated`` unless it had declared its answer; an engine's failure is
    ``error`` with the engine's reason as method.
    """
    if response.finish_reason == "error":
        return Verdict(response.id, response.sample, "error", "", "", response.text)
    outcome = verify(response.text, problem.answer, problem.options, precision=problem.precision)
    state, method = outcome.state, outcome.method
    undeclared = state == "unparsed" or method.startswith("lone")
    if response.finish_reason == "length" and undeclared:
        return Verdict(response.id, response.sample, "truncated", "", "", "length")
    if state == "unparsed" and _REFUSAL.search(response.text[:_REFUSAL_WITHIN].replace("’", "'")):
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
