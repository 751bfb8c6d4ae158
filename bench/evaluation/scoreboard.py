"""Each response scored once: the verdicts for the tables, and the running figures for whoever watches."""

from collections import Counter
from collections.abc import Iterable

from bench.records import Problem, Response, ResponseKey, Verdict
from bench.scoring.verdicts import score


class Scoreboard:
    """Verdicts on the responses that were added so far, by key."""

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
        """Counts of responses by what became of them, completion tokens, and the share that is right so far."""
        answered = len(self.verdicts)
        counts = {name: float(self._states[name]) for name in ("right", "unparsed", "truncated", "error")}
        accuracy = {"accuracy": self._states["right"] / answered} if answered else {}
        return {**accuracy, **counts, "tokens": float(self._tokens)}
