"""Scores each response once: verdicts for the tables, and running scores for the progress display."""

from collections import Counter
from collections.abc import Iterable

from bench.records import Problem, Response, ResponseKey, Verdict
from bench.scoring.scorer import score


class RunningScores:
    """Verdicts on the responses so far."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._problems = {(problem.benchmark, problem.id): problem for problem in problems}
        self._states: Counter[str] = Counter()
        self._tokens = 0
        self.verdicts: dict[ResponseKey, Verdict] = {}

    def add(self, response: Response) -> None:
        verdict = score(self._problems[response.benchmark, response.id], response)
        self.verdicts[response.key] = verdict
        self._states[verdict.state] += 1
        self._tokens += response.tokens

    def metrics(self) -> dict[str, float]:
        """Numbers of responses by state, completion tokens, and the share of right responses so far."""
        n = len(self.verdicts)
        counts = {name: float(self._states[name]) for name in ("right", "unparsed", "truncated", "error")}
        accuracy = {"accuracy": self._states["right"] / n} if n else {}
        return {**accuracy, **counts, "tokens": float(self._tokens)}
