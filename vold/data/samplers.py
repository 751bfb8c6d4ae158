"""Which items a step sees: a function of (seed, step), so that a resumed run needs no sampler state."""

from functools import lru_cache

import numpy as np

from vold.seeding import generator


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: str, count: int, epoch: int) -> np.ndarray:
    return generator(seed, stream, epoch).permutation(count)


def draw(seed: int, stream: str, count: int, batch_size: int, step: int) -> list[int]:
    """Indices below ``count`` of the ``step``-th batch: each epoch is a fresh permutation, read end to end.

    Raises ValueError when there is nothing to draw from.
    """
    if count == 0:
        raise ValueError(f"no items to draw for {stream!r}")
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_permutation(seed, stream, count, position // count)[position % count]) for position in positions]
