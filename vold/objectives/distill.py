"""The teacher term on student rollouts: its estimators, its mask, and the placebo that may take its place.

Let s and q be the student's and the teacher's log-probability of the sampled token. In expectation over the student's
tokens, the gradient of each estimator is that of

- ``k1_advantage``, ``k2``, ``k1_control``, ``reverse_kl``: KL(student || teacher)
- ``k3_forward``, ``forward_kl``: KL(teacher || student)
- ``jsd``, ``topk``: the divergence of that name (see ``vold.objectives.divergence``)

``reverse_kl``, ``forward_kl``, ``jsd`` and ``topk`` are exact at each position. The others are estimated from the
sampled token. k1 itself, (s - q) as a loss, is not offered because its expected gradient is exactly zero.

The placebo needs no teacher. It is the control of arXiv 2608.31046, which reports that it matches OPD: if it does so
here, the teacher's knowledge is not what helps.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vold.config import DistillConfig, Estimator, Mask
from vold.objectives import divergence as exact
from vold.objectives.batch import TokenBatch
from vold.objectives.divergence import Divergence
from vold.objectives.grpo import importance_ratio


def _k2(batch: TokenBatch) -> Tensor:
    return 0.5 * (batch.logprobs - _teacher(batch)) ** 2


def _k1_advantage(batch: TokenBatch) -> Tensor:
    return (batch.logprobs - _teacher(batch)).detach() * batch.logprobs


def _k1_control(batch: TokenBatch) -> Tensor:
    """k1 as an advantage, minus its expectation, the exact KL, as a baseline (arXiv 2605.07865)."""
    if batch.kl is None:
        raise ValueError("k1_control needs the exact KL at every position")
    return (batch.logprobs - _teacher(batch) - batch.kl).detach() * batch.logprobs


def _k3_forward(batch: TokenBatch) -> Tensor:
    """exp(q - s) - (q - s) - 1. Its mean is the reverse KL, and its gradient is that of the forward KL."""
    log_ratio = _teacher(batch) - batch.logprobs
    return log_ratio.exp() - log_ratio - 1


SAMPLED: dict[Estimator, Callable[[TokenBatch], Tensor]] = {
    "k2": _k2,
    "k1_advantage": _k1_advantage,
    "k1_control": _k1_control,
    "k3_forward": _k3_forward,
}
EXACT: dict[str, Divergence] = {
    "reverse_kl": exact.reverse_kl,
    "forward_kl": exact.forward_kl,
    "jsd": exact.jsd,
}


FOLLOWS: dict[Estimator, str] = {
    "k1_advantage": "reverse_kl",
    "k2": "reverse_kl",
    "k1_control": "reverse_kl",
    "reverse_kl": "reverse_kl",
    "k3_forward": "forward_kl",
    "forward_kl": "forward_kl",
    "jsd": "jsd",
    "topk": "topk",
}
"""The divergence whose gradient each estimator has, exactly or in expectation; tests check it by enumeration."""


def distill_term(batch: TokenBatch, config: DistillConfig) -> Tensor:
    """The masked per-token loss [T] of the target that ``config`` names."""
    if config.target == "placebo":
        return placebo_term(batch, config.placebo_probability, config.mask)
    return teacher_term(batch, config.estimator, config.mask)


def exact_divergence(estimator: Estimator, top_k: int) -> Divergence | None:
    """The divergence that the fused head must compute for ``estimator``; None if the sampled token is enough."""
    return partial(exact.topk_reverse_kl, k=top_k) if estimator == "topk" else EXACT.get(estimator)


def teacher_term(batch: TokenBatch, estimator: Estimator, mask: Mask) -> Tensor:
    """The masked per-token loss [T], with weight 1 - r (wrong), r (correct) or 1 (all) for reward r.

    The paper's masked objective is L_GRPO + beta * E[(1 - r) * KL]. The mean is over all rollouts, so masked tokens
    stay in the denominator. A masked token contributes 0 even if the teacher's value is -inf or NaN; an unmasked one
    then makes the loss non-finite. ``k1_advantage`` and ``k1_control`` have the right gradient, but their value means
    nothing. Raises ValueError for an unknown estimator or if the teacher's values are missing.
    """
    share = mask_share(batch.rewards, mask)
    live = share != 0
    if estimator in SAMPLED:
        # Where the mask is 0, the teacher is replaced and not multiplied by 0: 0 * inf would be NaN.
        values = SAMPLED[estimator](_with_teacher(batch, live))
        if batch.correction is not None:
            values = values * batch.correction
    elif estimator in EXACT or estimator == "topk":
        if batch.divergence is None:
            raise ValueError(f"{estimator} needs the exact divergence at every position")
        values = batch.divergence
    else:
        names = ", ".join([*SAMPLED, *EXACT, "topk"])
        raise ValueError(f"unknown estimator {estimator!r}: use one of {names} (k1 as a loss has no gradient)")
    return _masked(values, share)


def placebo_term(batch: TokenBatch, probability: float, mask: Mask) -> Tensor:
    """The masked per-token loss [T] p / p_old of sampled tokens with p_old < ``probability``, and 0 for all others.

    It is the policy-gradient loss of a fixed advantage of -1. At the first update its gradient is that of the log-
    probability of these tokens, and its expectation is that of the probability of drawing one of them.
    """
    unlikely = batch.old_logprobs < math.log(probability)
    values = torch.where(unlikely, importance_ratio(batch, "token"), torch.zeros_like(batch.logprobs))
    if batch.correction is not None:
        values = values * batch.correction
    return _masked(values, mask_share(batch.rewards, mask))


def mask_share(rewards: Tensor, mask: Mask) -> Tensor:
    """Weight of the term for rollouts with these rewards r: 1 - r (wrong), r (correct) or 1 (all)."""
    return {"wrong": 1 - rewards, "correct": rewards, "all": torch.ones_like(rewards)}[mask]


def _masked(values: Tensor, share: Tensor) -> Tensor:
    return torch.where(share != 0, values * share, torch.zeros_like(values))


def _with_teacher(batch: TokenBatch, live: Tensor) -> TokenBatch:
    if batch.teacher_logprobs is None:
        raise ValueError("the teacher term needs the teacher's log-probabilities")
    teacher = torch.where(live, batch.teacher_logprobs, batch.logprobs.detach())
    kl = None if batch.kl is None else torch.where(live, batch.kl, torch.zeros_like(batch.kl))
    return replace(batch, teacher_logprobs=teacher, kl=kl)


def _teacher(batch: TokenBatch) -> Tensor:
    assert batch.teacher_logprobs is not None
    return batch.teacher_logprobs
