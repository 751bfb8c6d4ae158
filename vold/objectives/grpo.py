"""Group-relative policy optimisation (GRPO) and its variants, each a choice of a few named options.

- GRPO: Shao et al. 2024, arXiv 2402.03300
- Dr.GRPO (no standard deviation, constant denominator): arXiv 2503.20783
- DAPO (higher upper clip bound, mean over tokens): arXiv 2503.14476
- GSPO (ratio of sequences): arXiv 2507.18071
- CISPO (the clipped ratio is a weight, every token keeps its gradient): arXiv 2506.13585

Unlike the published algorithms, these have no reference model: the teacher term takes its place. The denominators are
in ``vold.objectives.reduce``.
"""

from typing import Literal

import torch
from torch import Tensor

from vold.config import Advantage, Ratio, Surrogate
from vold.objectives.batch import TokenBatch


def group_advantages(rewards: Tensor, delta: float, scale: Advantage = "group_std") -> Tensor:
    """Advantages [G, K] of rewards r [G, K]: r minus the group's mean, for ``group_std`` over (std + delta).

    The standard deviation divides by K. A group of equal rewards gives exactly 0. A reward that is not finite makes
    its group NaN.
    """
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group_std":
        advantages = advantages / (rewards.std(dim=1, keepdim=True, correction=0) + delta)
    equal = ((rewards == rewards[:, :1]) & rewards.isfinite()).all(dim=1, keepdim=True)
    return torch.where(equal, torch.zeros_like(advantages), advantages)


def importance_ratio(batch: TokenBatch, level: Ratio) -> Tensor:
    """The ratio p / p_old [T] of each token, or its geometric mean over the token's rollout.

    The mean is written as sg(mean) * p / sg(p) at each token, as in GSPO-token, where sg stops the gradient. Summed
    over a rollout whose tokens have equal weights, this gives the gradient of the mean itself.
    """
    if level == "token":
        return (batch.logprobs - batch.old_logprobs).exp()
    if batch.sequence_log_ratio is None:
        raise ValueError("ratio sequence needs the mean log-ratio of every rollout (sequence_log_ratio)")
    return (batch.sequence_log_ratio + batch.logprobs - batch.logprobs.detach()).exp()


def policy_loss(
    batch: TokenBatch, *, ratio: Ratio, surrogate: Surrogate, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Per-token loss [T], and whether the clip binds [T] (bool), for bounds 1 - clip_low and 1 + clip_high.

    ``clip``: -min(ratio * A, clipped ratio * A).
    ``cispo``: -sg(clipped ratio) * A * log p, so that every token keeps its gradient. Its value means nothing.
    """
    free = importance_ratio(batch, ratio)
    bounded = free.clamp(1 - clip_low, 1 + clip_high)
    if surrogate == "cispo":
        loss = -bounded.detach() * batch.advantages * batch.logprobs
        binds = bounded.detach() != free.detach()
    else:
        loss = -torch.minimum(free * batch.advantages, bounded * batch.advantages)
        binds = (bounded * batch.advantages).detach() < (free * batch.advantages).detach()
    return loss if batch.correction is None else loss * batch.correction, binds


def truncated_importance(log_ratio: Tensor, cap: float) -> Tensor:
    """Importance weight min(p_trainer / p_engine, cap) [T] of tokens whose engine differs slightly from the policy.

    log_ratio [T]: log(p_trainer / p_engine) of each token, or of its whole rollout (``per_sequence`` with "sum").
    """
    return log_ratio.exp().clamp(max=cap)


def per_sequence(values: Tensor, lengths: Tensor, reduction: Literal["sum", "mean"]) -> Tensor:
    """Sum or mean of ``values`` [T] over each rollout of ``lengths`` [B], repeated at each of its tokens [T]."""
    reduced = torch.segment_reduce(values, reduction, lengths=lengths, unsafe=True)
    return reduced.repeat_interleave(lengths)
