"""The one reducer: every loss is the dot product of per-token values and weights fixed for the whole update.

The weights carry the global denominator, so the gradient is the same however the tokens are split over
micro-batches, ranks or padding.
"""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["token_mean", "sequence_mean"]


def token_weights(lengths: Tensor, reduction: Reduction) -> Tensor:
    """Weights [T] of the tokens of B completions with ``lengths`` [B], laid end to end.

    ``token_mean``: 1 / T each. ``sequence_mean``: 1 / (B * length of the token's row); empty completions count
    in B and contribute nothing.
    """
    total = int(lengths.sum())
    if reduction == "token_mean":
        return torch.full((total,), 1.0 / max(total, 1), device=lengths.device)
    per_row = 1.0 / (lengths.clamp(min=1) * len(lengths))
    return per_row.repeat_interleave(lengths)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """The share of a loss that these tokens carry: scalar."""
    return torch.dot(values, weights.to(values.dtype))
