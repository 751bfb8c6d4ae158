"""Drawing tokens: a completion is a function of its seed and the logits, whatever else is in the batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vold.objectives.divergence import expectation
from vold.seeding import generator

_BLOCK = 64


class Uniforms:
    """Uniform numbers addressed by (sample seed, step), drawn in blocks to spare the interpreter."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [generator(seed, "token") for seed in seeds]
        self._block = np.empty((len(seeds), 0))
        self._start = 0

    def at(self, step: int, rows: np.ndarray) -> np.ndarray:
        """float64 in [0, 1) for ``rows`` at ``step``; steps must be asked for in order."""
        if step >= self._start + self._block.shape[1]:
            self._start += self._block.shape[1]
            fresh = np.zeros((len(self._streams), _BLOCK))
            for row in rows:
                fresh[row] = self._streams[row].random(_BLOCK)
            self._block = fresh
        return self._block[rows, step - self._start]


class Drawn(NamedTuple):
    """ids [B], their log-probabilities [B], and the entropies [B] of the distributions that they come from."""

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
    """Tokens from logits [B, V] by inversion of the distribution function.

    ``bias`` [V] is added to the scaled logits (``BANNED`` where an id cannot be drawn). Temperature 0 takes the most
    likely token, and its log-probability is that at temperature 1, as is the entropy.
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
