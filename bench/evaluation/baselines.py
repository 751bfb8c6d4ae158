"""Accuracies that need no model: random guesses and the most frequent answer, computed from the records."""

from collections import Counter
from collections.abc import Sequence

from bench.records import Problem
from bench.summary import Baselines
from vold.answers import reference_labels

Group = tuple[str, int]
"""(kind of the answer, number of options)."""


def baselines(records: Sequence[Problem], problems: Sequence[Problem]) -> Baselines:
    """The baselines on ``problems``.

    records: the whole data set, whose reference answers decide which is most frequent; of equally frequent ones, the
    first in the records is taken. Where the options are in the image (LogicVista), their number is the number of labels
    that occur as reference answers. Raises ValueError if ``problems`` is empty.
    """
    if not problems:
        raise ValueError("a baseline needs at least one problem")
    answers: dict[Group, Counter[str]] = {}
    for problem in records:
        if not problem.unscorable:
            answers.setdefault(_group(problem), Counter())[_reference(problem)] += 1
    labels = len({_reference(problem) for problem in records if problem.kind == "choice" and not problem.options})
    most_frequent = {group: counts.most_common(1)[0][0] for group, counts in answers.items()}
    return Baselines(
        chance=sum(_chance(problem, labels) for problem in problems) / len(problems),
        majority=sum(_reference(problem) == most_frequent[_group(problem)] for problem in problems) / len(problems),
    )


def _group(problem: Problem) -> Group:
    return problem.kind, len(problem.options)


def _reference(problem: Problem) -> str:
    """The labels of the reference answer, or its text if it names no option."""
    labels = reference_labels(problem.answer, problem.options) if problem.options else ()
    return ",".join(sorted(labels)) or problem.answer.strip()


def _chance(problem: Problem, labels: int) -> float:
    if problem.kind != "choice":
        return 0.0
    right = len(reference_labels(problem.answer, problem.options)) if problem.options else 1
    return right / (len(problem.options) or labels)
