"""The items of a step, as a function of seed and step, so that a resumed run needs no sampler state."""

from functools import lru_cache

import numpy as np

from vold.seeding import generator


@lru_cache(maxsize=4)
def _permutation(seed: int, stream: str, count: int, epoch: int) -> np.ndarray:
    return generator(seed, stream, epoch).permutation(count)


def draw(seed: int, stream: str, count: int, batch_size: int, step: int) -> list[int]:
    """The indices (below ``count``) of the batch of ``step``. Each epoch is a new permutation of all items.

    Raises ValueError if ``count`` is 0.
    """
    if count == 0:
        raise ValueError(f"no items to draw for {stream!r}")
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_permutation(seed, stream, count, position // count)[position % count]) for position in positions]
