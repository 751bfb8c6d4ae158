"""The teacher term on student rollouts: estimators of the reverse KL, KL(student || teacher), and its mask.

k1 itself, (log p_s - log p_t) back-propagated, is not offered: its expected gradient is exactly zero.
"""

from typing import Literal

from torch import Tensor

from vold.objectives.batch import TokenBatch

Estimator = Literal["k2", "k1_advantage", "reverse_kl"]
Mask = Literal["wrong", "all", "correct"]


def _k2(batch: TokenBatch) -> Tensor:
    return 0.5 * (batch.logprobs - _teacher(batch)) ** 2


def _k1_advantage(batch: TokenBatch) -> Tensor:
    return (batch.logprobs - _teacher(batch)).detach() * batch.logprobs


def _reverse_kl(batch: TokenBatch) -> Tensor:
    if batch.kl is None:
        raise ValueError("reverse_kl needs the exact KL of every position")
    return batch.kl


_ESTIMATORS = {"k2": _k2, "k1_advantage": _k1_advantage, "reverse_kl": _reverse_kl}


def teacher_term(batch: TokenBatch, estimator: Estimator, mask: Mask) -> Tensor:
    """Per-token loss [T], already masked: wrong (1 - r), correct (r) or all (1), r the rollout's reward.

    The paper's masked objective is L_GRPO + beta * E[(1 - r) * KL]: the mean runs over all rollouts, so masked
    tokens stay in the denominator. ``k1_advantage`` has the gradient of interest, not its value.
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(
            f"unknown estimator {estimator!r}: one of {', '.join(_ESTIMATORS)} (k1 as a loss has no gradient)"
        )
    values = _ESTIMATORS[estimator](batch)
    if mask == "all":
        return values
    return values * (1 - batch.rewards if mask == "wrong" else batch.rewards)


def _teacher(batch: TokenBatch) -> Tensor:
    if batch.teacher_logprobs is None:
        raise ValueError("the teacher term needs the teacher's log-probabilities")
    return batch.teacher_logprobs
