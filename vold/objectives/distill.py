"""The teacher term on student rollouts: its estimators, named by what they optimise, its mask and its weight.

With s, q the student's and teacher's log-probability of the sampled token, and expectations over the student's
tokens, the gradients are those of

- ``k1_advantage``, ``k2``, ``k1_control``, ``reverse_kl``: KL(student || teacher)
- ``k3_forward``, ``forward_kl``: KL(teacher || student)
- ``jsd``, ``topk``: their own (see ``vold.objectives.divergence``)

``reverse_kl``, ``forward_kl``, ``jsd`` and ``topk`` are exact at each position, the others estimated from the token
that was drawn. k1 itself, (s - q) back-propagated, is not offered: its expected gradient is exactly zero.
"""

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vold.config import DistillConfig, Estimator, Mask
from vold.objectives import divergence as exact
from vold.objectives.batch import TokenBatch
from vold.objectives.divergence import Divergence


def _k2(batch: TokenBatch) -> Tensor:
    return 0.5 * (batch.logprobs - _teacher(batch)) ** 2


def _k1_advantage(batch: TokenBatch) -> Tensor:
    return (batch.logprobs - _teacher(batch)).detach() * batch.logprobs


def _k1_control(batch: TokenBatch) -> Tensor:
    """k1 as advantage; the exact KL, which is k1's expectation, is its baseline (arXiv 2605.07865)."""
    if batch.kl is None:
        raise ValueError("k1_control needs the exact KL of every position")
    return (batch.logprobs - _teacher(batch) - batch.kl).detach() * batch.logprobs


def _k3_forward(batch: TokenBatch) -> Tensor:
    """exp(q - s) - (q - s) - 1: its mean is the reverse KL, and its gradient back-propagated the forward KL's."""
    log_ratio = _teacher(batch) - batch.logprobs
    return log_ratio.exp() - log_ratio - 1


_SAMPLED = {"k2": _k2, "k1_advantage": _k1_advantage, "k1_control": _k1_control, "k3_forward": _k3_forward}
_EXACT: dict[str, Divergence] = {
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


def exact_divergence(estimator: Estimator, top_k: int) -> Divergence | None:
    """What the fused head has to compute for ``estimator``; None when the sampled token is enough."""
    return partial(exact.topk_reverse_kl, k=top_k) if estimator == "topk" else _EXACT.get(estimator)


def teacher_term(batch: TokenBatch, estimator: Estimator, mask: Mask) -> Tensor:
    """Per-token loss [T], already masked: wrong (1 - r), correct (r) or all (1), r the rollout's reward.

    The paper's masked objective is L_GRPO + beta * E[(1 - r) * KL]: the mean runs over all rollouts, so masked
    tokens stay in the denominator. A masked token contributes 0 whatever the teacher said, -inf and NaN included;
    an unmasked one then makes the loss non-finite. ``k1_advantage`` and ``k1_control`` have the gradient of
    interest, not its value. Raises ValueError for an unknown estimator or a teacher that did not speak.
    """
    share = mask_share(batch.rewards, mask)
    live = share != 0
    if estimator in _SAMPLED:
        # Behind the mask the teacher is replaced, not multiplied away: 0 * inf would be NaN.
        values = _SAMPLED[estimator](_with_teacher(batch, live))
        if batch.correction is not None:
            values = values * batch.correction
    elif estimator in _EXACT or estimator == "topk":
        if batch.divergence is None:
            raise ValueError(f"{estimator} needs the exact divergence of every position")
        values = batch.divergence
    else:
        names = ", ".join([*_SAMPLED, *_EXACT, "topk"])
        raise ValueError(f"unknown estimator {estimator!r}: one of {names} (k1 as a loss has no gradient)")
    return torch.where(live, values * share, torch.zeros_like(values))


def mask_share(rewards: Tensor, mask: Mask) -> Tensor:
    """How much of the term a rollout with this reward gets: wrong (1 - r), correct (r) or all (1)."""
    return {"wrong": 1 - rewards, "correct": rewards, "all": torch.ones_like(rewards)}[mask]


def distill_weight(config: DistillConfig, step: int, total: int) -> float:
    """The term's weight at ``step`` (from 0) of ``total``: 0 for ``delay`` steps, then ``weight`` to ``weight_end``.

    The last step has ``weight_end``; a constant schedule stays at ``weight``.
    """
    if step < config.delay:
        return 0.0
    if config.schedule == "constant" or config.weight_end is None:
        return config.weight
    progress = (step - config.delay) / max(total - config.delay - 1, 1)
    share = progress if config.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * progress))
    return config.weight + (config.weight_end - config.weight) * share


def _with_teacher(batch: TokenBatch, live: Tensor) -> TokenBatch:
    if batch.teacher_logprobs is None:
        raise ValueError("the teacher term needs the teacher's log-probabilities")
    teacher = torch.where(live, batch.teacher_logprobs, batch.logprobs.detach())
    kl = None if batch.kl is None else torch.where(live, batch.kl, torch.zeros_like(batch.kl))
    return replace(batch, teacher_logprobs=teacher, kl=kl)


def _teacher(batch: TokenBatch) -> Tensor:
    assert batch.teacher_logprobs is not None
    return batch.teacher_logprobs
