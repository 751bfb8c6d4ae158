"""The input of the losses: completion tokens of several rollouts, end to end."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Per-token arrays [T] in the order of the rollouts. Only ``logprobs`` and ``divergence`` may carry gradient.

    logprobs: the student's log-probability of each token.
    old_logprobs: the same, computed by the trainer before the first update on these rollouts.
    advantages, rewards: the value of the token's rollout.
    teacher_logprobs: the teacher's log-probability. It, kl and divergence are None if the teacher was not run.
    kl: the exact KL(student || teacher) at the token's position.
    divergence: the exact divergence that is optimised.
    sequence_log_ratio: the mean of logprobs - old_logprobs over the token's rollout, for ratios of sequences.
    correction: the importance weight of terms estimated from sampled tokens, as the sampler may differ slightly from
    the policy. None means 1.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    rewards: Tensor
    teacher_logprobs: Tensor | None = None
    kl: Tensor | None = None
    divergence: Tensor | None = None
    sequence_log_ratio: Tensor | None = None
    correction: Tensor | None = None
