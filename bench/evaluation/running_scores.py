"""Scores each response once: verdicts for the tables, and running scores for the progress display."""

from collections import Counter
from collections.abc import Iterable

from bench.benchmarks.registry import pooled
from bench.records import Problem, Response, ResponseKey, Verdict
from bench.scoring.scorer import score


class RunningScores:
    """Verdicts on the responses so far."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._problems = {(problem.benchmark, problem.id): problem for problem in problems}
        self._pooled = frozenset(pooled({benchmark for benchmark, _ in self._problems}))
        self._scored = self._right = 0
        """Responses to the pooled benchmarks, and those of them that are right."""
        self._states: Counter[str] = Counter()
        self._tokens = 0
        self.verdicts: dict[ResponseKey, Verdict] = {}

    def add(self, response: Response) -> None:
        verdict = score(self._problems[response.benchmark, response.id], response)
        self.verdicts[response.key] = verdict
        self._states[verdict.state] += 1
        if response.benchmark in self._pooled:
            self._scored += 1
            self._right += verdict.correct
        self._tokens += response.tokens

    def metrics(self) -> dict[str, float]:
        """Numbers of responses by state, completion tokens, and the share of right responses so far.

        ``accuracy``, ``right`` and ``scored`` (its denominator) count the pooled benchmarks, the other numbers all.
        """
        counts = {name: float(self._states[name]) for name in ("unparsed", "truncated", "error")}
        accuracy = {"accuracy": self._right / self._scored} if self._scored else {}
        return {
            **accuracy,
            "right": float(self._right),
            "scored": float(self._scored),
            **counts,
            "tokens": float(self._tokens),
        }
