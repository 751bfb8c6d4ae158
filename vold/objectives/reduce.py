"""Denominators of the losses, as one weight per token.

Every loss is the dot product of per-token values and these weights. They are fixed for the whole update and contain
the denominator of the whole batch, so the gradient does not depend on how tokens are split over micro-batches or ranks.
Each term of a loss may have its own weights.
"""

import torch
from torch import Tensor

from vold.config import Reduction


def token_weights(lengths: Tensor, reduction: Reduction, *, limit: int | None = None) -> Tensor:
    """Weights [T], float64, of all tokens of an update's B completions with ``lengths`` [B].

    ``token_mean``: 1 / T.
    ``sequence_mean``: 1 / (B * length of the token's completion). Empty completions count in B.
    ``constant``: 1 / (B * ``limit``), where limit is the longest completion allowed (Dr.GRPO, arXiv 2503.20783).
    Raises ValueError if ``constant`` has no limit.
    """
    if reduction == "token_mean":
        per_row = torch.full_like(lengths, 1.0 / max(int(lengths.sum()), 1), dtype=torch.float64)
    elif reduction == "sequence_mean":
        per_row = 1.0 / (lengths.clamp(min=1).double() * max(len(lengths), 1))
    elif limit is None:
        raise ValueError("reduction constant needs limit, the longest completion allowed")
    else:
        per_row = torch.full_like(lengths, 1.0 / (max(len(lengths), 1) * limit), dtype=torch.float64)
    return per_row.repeat_interleave(lengths)
