"""Which problems of a data set are asked."""

from dataclasses import dataclass

from bench.benchmarks import Dataset
from bench.records import Problem
from vold.seeding import generator


@dataclass(frozen=True, slots=True)
class Selection:
    """A data set with the problems that are asked, in the order of asking."""

    dataset: Dataset
    problems: tuple[Problem, ...]


def select(dataset: Dataset, limit: int | None, seed: int) -> Selection:
    """The scorable problems, or the first ``limit`` of their seeded shuffle in the data set's own order."""
    problems = [problem for problem in dataset.problems if not problem.unscorable]
    if limit is not None and limit < len(problems):
        order = generator(seed, "subset", dataset.name, dataset.split).permutation(len(problems))
        problems = [problems[index] for index in sorted(order[:limit])]
    return Selection(dataset, tuple(problems))
