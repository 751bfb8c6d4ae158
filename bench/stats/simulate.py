"""A seeded simulation of how often a 95 % interval covers the truth: ``python -m bench.stats.simulate``.

Two arms answer the same items over several seeds, right or wrong. The true difference is known, because each answer
follows a linear probability model of item difficulty, a gain of the item, and a seed effect of each arm.
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

    seed_sd: standard deviation of an arm's seed effect.
    gain_sd: standard deviation of the gain over items.
    effect: the true difference.
    """

    seeds: int
    items: int
    seed_sd: float
    gain_sd: float
    effect: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of repetitions in which the interval covered the truth, and in which it excluded 0."""

    setting: Setting
    covered: float
    excluded_zero: float


GRID = tuple(
    Setting(seeds, items, seed_sd, gain_sd, effect)
    for seeds, items, seed_sd, gain_sd, effect in product(
        (3, 5), (120,), (0.0, 0.02, 0.05), (0.0, 0.15, 0.3), (0.0, 0.1)
    )
)


def simulate_contrast(setting: Setting, rng: np.random.Generator) -> Cells:
    """The paired differences of one simulated contrast on two benchmarks of equal size."""
    shape = (setting.seeds, setting.items)
    difficulty = rng.choice([-0.2, 0.2], setting.items)
    gain = rng.choice([-1.0, 1.0], setting.items) * setting.gain_sd
    seed_effect = np.clip(rng.normal(0, setting.seed_sd, (2, setting.seeds, 1)), -0.1, 0.1)
    middle = 0.5 + difficulty
    test = rng.random(shape) < middle + (setting.effect + gain) / 2 + seed_effect[0]
    against = rng.random(shape) < middle - (setting.effect + gain) / 2 + seed_effect[1]
    seed, item = np.indices(shape)
    return Cells(
        score=(test.astype(float) - against).ravel(),
        stratum=(item * 2 // setting.items).ravel(),
        seed=seed.ravel(),
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
    yield "seeds items seed_sd gain_sd effect covered excludes_0"
    results = [coverage(setting, repetitions) for setting in GRID]
    for r in results:
        s = r.setting
        yield (
            f"{s.seeds:5d} {s.items:5d} {s.seed_sd:7.2f} {s.gain_sd:7.2f} {s.effect:6.2f} "
            f"{100 * r.covered:6.1f}% {100 * r.excluded_zero:9.1f}%"
        )
    for seeds in sorted({r.setting.seeds for r in results}):
        mean = np.mean([r.covered for r in results if r.setting.seeds == seeds])
        yield f"mean over the grid at {seeds} seeds: {100 * mean:.1f}% covered"


if __name__ == "__main__":
    print("\n".join(coverage_table()))
