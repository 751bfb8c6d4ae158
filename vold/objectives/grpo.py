"""Group-relative policy optimisation without a reference KL, and its relatives, as small named choices.

GRPO: Shao et al. 2024, arXiv 2402.03300. Dr.GRPO (no standard deviation, constant denominator): 2503.20783. DAPO
(clip-higher, token level): 2503.14476. GSPO (ratio of sequences): 2507.18071. CISPO (clipped weight, no clipped
token): 2506.13585. Denominators are those of ``vold.objectives.reduce``. Removed from the published algorithms: the
reference model (the teacher term stands in its place).
"""

from typing import Literal

import torch
from torch import Tensor

from vold.config import Advantage, Ratio, Surrogate
from vold.objectives.batch import TokenBatch


def group_advantages(rewards: Tensor, delta: float, scale: Advantage = "group_std") -> Tensor:
    """(r - mean), for ``group_std`` over (std + delta), within each group [G, K]; std divides by K.

    An all-equal group gives exactly 0, a reward that is no finite number makes its group NaN.
    """
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group_std":
        advantages = advantages / (rewards.std(dim=1, keepdim=True, correction=0) + delta)
    equal = ((rewards == rewards[:, :1]) & rewards.isfinite()).all(dim=1, keepdim=True)
    return torch.where(equal, torch.zeros_like(advantages), advantages)


def importance_ratio(batch: TokenBatch, level: Ratio) -> Tensor:
    """p / p_old [T]: of the token, or the geometric mean over its rollout.

    The mean has its gradient through every token of the rollout: written as sg(mean) * p / sg(p) at each token, as
    in GSPO-token, which sums to the gradient of the mean itself wherever a rollout's tokens weigh the same.
    """
    if level == "token":
        return (batch.logprobs - batch.old_logprobs).exp()
    if batch.sequence_log_ratio is None:
        raise ValueError("a ratio of sequences needs the mean log-ratio of every rollout")
    return (batch.sequence_log_ratio + batch.logprobs - batch.logprobs.detach()).exp()


def policy_loss(
    batch: TokenBatch, *, ratio: Ratio, surrogate: Surrogate, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Per-token loss [T] and whether the clip binds [T] bool, for bounds 1 - clip_low and 1 + clip_high.

    ``clip``: -min(ratio * A, clipped ratio * A). ``cispo``: -sg(clipped ratio) * A * log p, so that no token loses
    its gradient; it has the gradient of interest, not its value.
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
    """min(p_trainer / p_engine, cap) from its logarithm: the weight of what an engine sampled that is not quite the
    policy; of each token's own ratio, or of its whole rollout's (``per_sequence`` sum)."""
    return log_ratio.exp().clamp(max=cap)


def per_sequence(values: Tensor, lengths: Tensor, what: Literal["sum", "mean"]) -> Tensor:
    """Sum or mean of ``values`` [T] over each rollout of ``lengths`` [B], at each of its tokens [T]."""
    sums = torch.segment_reduce(values, what, lengths=lengths, unsafe=True)
    return sums.repeat_interleave(lengths)
