"""The one reducer: every loss is the dot product of per-token values and weights fixed for the whole update.

The weights carry the denominator of the whole batch, so the gradient is the same however the tokens are split over
micro-batches, ranks, packed rows or padding. Each term of a loss may have weights of its own.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["token_mean", "sequence_mean", "constant"]


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Completions and their tokens in one update, summed over micro-batches and ranks."""

    sequences: int
    tokens: int


def token_weights(
    lengths: Tensor, reduction: Reduction, *, size: BatchSize | None = None, limit: int | None = None
) -> Tensor:
    """Weights [T] float64 of the tokens of B completions with ``lengths`` [B], laid end to end.

    ``token_mean``: 1 / all tokens. ``sequence_mean``: 1 / (all sequences * length of the token's own); empty
    completions count and contribute nothing. ``constant``: 1 / (all sequences * ``limit``), the longest completion
    allowed (Dr.GRPO, arXiv 2503.20783). ``size`` is that of the whole update; None: these completions are all of it.
    Raises ValueError when ``constant`` has no limit.
    """
    size = size or BatchSize(len(lengths), int(lengths.sum()))
    if reduction == "token_mean":
        per_row = torch.full(lengths.shape, 1.0 / max(size.tokens, 1), dtype=torch.float64, device=lengths.device)
    elif reduction == "sequence_mean":
        per_row = 1.0 / (lengths.clamp(min=1).double() * max(size.sequences, 1))
    elif limit is None:
        raise ValueError("a constant denominator needs the longest completion allowed")
    else:
        constant = 1.0 / (max(size.sequences, 1) * limit)
        per_row = torch.full(lengths.shape, constant, dtype=torch.float64, device=lengths.device)
    return per_row.repeat_interleave(lengths)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """The share of a loss that these tokens carry: scalar."""
    return torch.dot(values, weights.to(values.dtype))
