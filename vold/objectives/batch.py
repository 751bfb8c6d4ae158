"""What the losses see: completion tokens of several rollouts, laid end to end."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Per-token arrays [T] in the order of the rollouts.

    logprobs: student's log-probability of each token (with gradient); old_logprobs: the same under the policy
    that the ratio is taken against (no gradient); advantages, rewards: the rollout's value at each of its tokens;
    teacher_logprobs, kl: the teacher's log-probability and the exact KL(student || teacher) at each position
    (``kl`` with gradient where it is the objective), None when the teacher did not speak.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    rewards: Tensor
    teacher_logprobs: Tensor | None = None
    kl: Tensor | None = None
