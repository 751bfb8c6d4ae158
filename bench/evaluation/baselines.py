"""What can be had without looking: blind guesses and the most frequent answer, from the records alone."""

from collections import Counter
from collections.abc import Sequence

from bench.records import Problem
from bench.summary import Baselines
from vold.answers import reference_labels

Group = tuple[str, int]


def baselines(records: Sequence[Problem], asked: Sequence[Problem]) -> Baselines:
    """``records``: the whole data set, whose golds decide what is frequent; ``asked``: the problems that are scored.

    Where options stand in the image (LogicVista), their number is taken to be that of the labels that occur as
    golds. Ties go to the gold that comes first in the records. Raises ValueError where nothing is asked.
    """
    if not asked:
        raise ValueError("no problem is asked: a baseline needs at least one")
    golds: dict[Group, Counter[str]] = {}
    for problem in records:
        if not problem.unscorable:
            golds.setdefault(_group(problem), Counter())[_gold(problem)] += 1
    labels = len({_gold(problem) for problem in records if problem.kind == "choice" and not problem.options})
    frequent = {group: counts.most_common(1)[0][0] for group, counts in golds.items()}
    return Baselines(
        chance=sum(_chance(problem, labels) for problem in asked) / len(asked),
        majority=sum(_gold(problem) == frequent[_group(problem)] for problem in asked) / len(asked),
    )


def _group(problem: Problem) -> Group:
    return problem.kind, len(problem.options)


def _gold(problem: Problem) -> str:
    """A label where the gold names one, else the answer itself."""
    labels = reference_labels(problem.answer, problem.options) if problem.options else ()
    return ",".join(sorted(labels)) or problem.answer.strip()


def _chance(problem: Problem, labels: int) -> float:
    if problem.kind != "choice":
        return 0.0
    right = len(reference_labels(problem.answer, problem.options)) if problem.options else 1
    return right / (len(problem.options) or labels)
