"""Group-relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) without a reference KL.

Removed from the published algorithm: the reference model (the teacher term stands in its place).
Clipping is asymmetric (clip-higher, arXiv 2503.14476).
"""

import torch
from torch import Tensor

from vold.objectives.batch import TokenBatch


def group_advantages(rewards: Tensor, delta: float) -> Tensor:
    """(r - mean) / (std + delta) within each group [G, K]; std divides by K, and an all-equal group gives exactly 0."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    scaled = centred / (rewards.std(dim=1, keepdim=True, correction=0) + delta)
    return torch.where((rewards == rewards[:, :1]).all(dim=1, keepdim=True), torch.zeros_like(scaled), scaled)


def clipped_surrogate(batch: TokenBatch, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """Per-token loss [T] and whether the clip is what bounds it [T] bool.

    loss = -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A), ratio = p / p_old.
    """
    ratio = (batch.logprobs - batch.old_logprobs).exp()
    free = ratio * batch.advantages
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * batch.advantages
    return -torch.minimum(free, bounded), bounded.detach() < free.detach()
