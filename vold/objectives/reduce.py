"""The one reducer: every loss is the dot product of per-token values and weights fixed for the whole update.

The weights carry the denominator of the whole batch, so the gradient is the same however the tokens are split over
micro-batches, ranks, packed rows or padding. Each term of a loss may have weights of its own.
"""

import torch
from torch import Tensor

from vold.config import Reduction


def token_weights(lengths: Tensor, reduction: Reduction, *, limit: int | None = None) -> Tensor:
    """Weights [T] float64 of the tokens of an update's B completions with ``lengths`` [B], laid end to end.

    ``token_mean``: 1 / T. ``sequence_mean``: 1 / (B * length of the token's own); empty completions count in B and
    contribute nothing. ``constant``: 1 / (B * ``limit``), the longest completion allowed (Dr.GRPO, arXiv 2503.20783).
    Raises ValueError when ``constant`` has no limit.
    """
    if reduction == "token_mean":
        per_row = torch.full_like(lengths, 1.0 / max(int(lengths.sum()), 1), dtype=torch.float64)
    elif reduction == "sequence_mean":
        per_row = 1.0 / (lengths.clamp(min=1).double() * max(len(lengths), 1))
    elif limit is None:
        raise ValueError("a constant denominator needs the longest completion allowed")
    else:
        per_row = torch.full_like(lengths, 1.0 / (max(len(lengths), 1) * limit), dtype=torch.float64)
    return per_row.repeat_interleave(lengths)
