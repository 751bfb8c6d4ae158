"""What the losses see: completion tokens of several rollouts, laid end to end."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Per-token arrays [T] in the order of the rollouts; only ``logprobs`` and ``divergence`` may carry gradient.

    logprobs: student's log-probability of each token; old_logprobs: the same by the trainer before the first update
    on these rollouts; advantages, rewards: the rollout's value at each of its tokens.
    teacher_logprobs, kl, divergence: the teacher's log-probability, the exact KL(student || teacher) and the exact
    divergence that is the objective; None when the teacher did not speak.
    sequence_log_ratio: mean of logprobs - old_logprobs over the token's rollout, for ratios of sequences.
    correction: weight of what is estimated from sampled tokens, where the sampler was not quite the policy; None: 1.
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
