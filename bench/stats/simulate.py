"""A seeded simulation of how often a 95 % interval covers the truth: ``python -m bench.stats.simulate``.

Two arms answer the same items, right or wrong, over several students and several seeds of each. The true difference is
known, because each answer follows a linear probability model of item difficulty, a gain of the item, an effect of the
student, and an effect of each arm's training run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.stats.cells import Cells
from bench.stats.variance import mean_and_spread
from vold.seeding import generator


@dataclass(frozen=True, slots=True)
class Setting:
    """A simulated contrast. The random stream depends on the ``repr`` of this class, so its name and fields must stay.

    seeds: number of seeds per student.
    seed_sd: standard deviation of the effect of an arm's training run.
    gain_sd: standard deviation of the gain over items.
    effect: the true difference, as a mean over the students.
    student_effect: half the range of the students' accuracies, and half the range of their true differences.
    """

    students: int
    seeds: int
    items: int
    seed_sd: float
    gain_sd: float
    effect: float
    student_effect: float = 0.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of repetitions in which the interval covered the truth, and in which it excluded 0."""

    setting: Setting
    covered: float
    excluded_zero: float


GRID = tuple(
    Setting(1, seeds, 120, seed_sd, gain_sd, effect)
    for seeds, seed_sd, gain_sd, effect in product((3, 5), (0.0, 0.02, 0.05), (0.0, 0.15, 0.3), (0.0, 0.1))
) + tuple(
    Setting(students, seeds, 120, seed_sd, gain_sd, effect, student_effect=0.1)
    for students, seeds, seed_sd, gain_sd, effect in product((2, 3), (2, 3), (0.02, 0.05), (0.0, 0.15), (0.0, 0.1))
)


def simulate_contrast(setting: Setting, rng: np.random.Generator) -> Cells:
    """The paired differences of one simulated contrast on two benchmarks of equal size."""
    shape = (setting.students * setting.seeds, setting.items)
    run, item = np.indices(shape)
    difficulty = rng.choice([-0.1, 0.1], setting.items)
    gain = rng.choice([-1.0, 1.0], setting.items) * setting.gain_sd
    run_effect = np.clip(rng.normal(0, setting.seed_sd, (2, shape[0], 1)), -0.1, 0.1)
    place = np.linspace(-1, 1, setting.students) if setting.students > 1 else np.zeros(1)
    student_effect = (setting.student_effect * place)[run // setting.seeds]
    # The extremes of all parts add up to probabilities from 0 to 1.
    middle, half = 0.5 + difficulty + student_effect, (setting.effect + gain + student_effect) / 2
    test = rng.random(shape) < middle + half + run_effect[0]
    against = rng.random(shape) < middle - half + run_effect[1]
    return Cells(
        score=(test.astype(float) - against).ravel(),
        stratum=(item * 2 // setting.items).ravel(),
        student=(run // setting.seeds).ravel(),
        run=run.ravel(),
        cluster=item.ravel(),
        items=setting.items,
        samples=test.size,
    )


def coverage(setting: Setting, repetitions: int, seed: int = 7) -> Coverage:
    """The coverage of the interval over ``repetitions`` simulated contrasts; deterministic in ``seed``."""
    rng = generator(seed, "coverage", repr(setting))
    covered = excluded = 0
    for _ in range(repetitions):
        value, spread = mean_and_spread(simulate_contrast(setting, rng))
        reach = spread.reach(0.975)
        covered += abs(value - setting.effect) <= reach
        excluded += abs(value) > reach
    return Coverage(setting, covered / repetitions, excluded / repetitions)


def coverage_table(repetitions: int = 2000) -> Iterator[str]:
    """Lines of the coverage table over ``GRID``."""
    yield "students seeds seed_sd gain_sd effect covered excludes_0"
    results = [coverage(setting, repetitions) for setting in GRID]
    for r in results:
        s = r.setting
        yield (
            f"{s.students:8d} {s.seeds:5d} {s.seed_sd:7.2f} {s.gain_sd:7.2f} {s.effect:6.2f} "
            f"{100 * r.covered:6.1f}% {100 * r.excluded_zero:9.1f}%"
        )
    for students, seeds in sorted({(r.setting.students, r.setting.seeds) for r in results}):
        mean = np.mean([r.covered for r in results if (r.setting.students, r.setting.seeds) == (students, seeds)])
        yield f"mean over the grid at {students} students x {seeds} seeds: {100 * mean:.1f}% covered"


if __name__ == "__main__":
    print("\n".join(coverage_table()))
