"""Drawing tokens. A completion is a function of its seed and the logits, and not of the rest of the batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vold.objectives.divergence import expectation
from vold.seeding import generator

_BLOCK = 64


class Uniforms:
    """Uniform random numbers by (seed of the sample, step). Drawn in blocks, which is faster."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [generator(seed, "token") for seed in seeds]
        self._block = np.empty((len(seeds), 0))
        self._start = 0

    def at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Numbers in [0, 1) for ``rows`` at ``step``: [len(rows)] float64. Steps must be requested in order."""
        if step >= self._start + self._block.shape[1]:
            self._start += self._block.shape[1]
            self._block = np.zeros((len(self._streams), _BLOCK))
            for row in rows:
                self._block[row] = self._streams[row].random(_BLOCK)
        return self._block[rows, step - self._start]


class Drawn(NamedTuple):
    """Drawn ids [B], their log-probabilities [B], and the entropies [B] of the distributions they are drawn from."""

    ids: Tensor
    logprobs: Tensor
    entropies: Tensor | None


def draw(
    logits: Tensor,
    uniforms: np.ndarray | None,
    temperature: float,
    bias: Tensor | None,
    entropies: bool = False,
) -> Drawn:
    """Draw tokens from logits [B, V] by inverting the cumulative distribution.

    uniforms: [B], random numbers in [0, 1). bias: [V], added to the scaled logits (``BANNED`` for ids that cannot be
    drawn). A temperature of 0 takes the most likely token; log-probabilities and entropies are those at temperature 1.
    """
    scaled = logits.float()
    if temperature not in (0, 1):
        scaled = scaled / temperature
    if bias is not None:
        scaled = scaled + bias
    logprobs = scaled.log_softmax(dim=-1)
    probabilities = logprobs.exp() if entropies or uniforms is not None else None
    if temperature == 0 or uniforms is None:
        ids = logprobs.argmax(dim=-1, keepdim=True)
    else:
        assert probabilities is not None
        # The first id whose cumulative probability exceeds u; an id of probability 0 is never the first.
        cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
        threshold = torch.from_numpy(uniforms).to(cumulative.device)[:, None] * cumulative[:, -1:]
        ids = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=logits.shape[-1] - 1)
    entropy = -expectation(probabilities, logprobs) if entropies and probabilities is not None else None
    return Drawn(ids[:, 0], logprobs.gather(1, ids)[:, 0], entropy)
