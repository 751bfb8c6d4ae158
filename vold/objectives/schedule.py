"""The weights of the two terms of the RL loss at each step."""

import math
from dataclasses import dataclass

from vold.config import DistillConfig, RLConfig


@dataclass(frozen=True, slots=True)
class TermWeights:
    """Weights of the policy term and of the teacher term in the loss of one step."""

    policy: float
    distill: float

    def terms(self) -> dict[str, "TermWeights"]:
        """Each term that has a weight, by name, with the weights under which it is the whole loss."""
        alone = {"policy": TermWeights(self.policy, 0.0), "distill": TermWeights(0.0, self.distill)}
        return {name: weights for name, weights in alone.items() if weights.policy or weights.distill}


def term_weights(config: RLConfig, step: int) -> TermWeights:
    """The weights at ``step`` (from 0).

    With the schedule ``distill_then_reward`` the teacher term has a weight in the first part only, at whose last step
    ``weight_end`` is reached, and the policy term in the second part only.
    """
    first = config.parts[0]
    distill = distill_weight(config.distill, step, len(first)) if step in first else 0.0
    has_reward = config.schedule == "joint" or step not in first
    return TermWeights(config.reward_weight if has_reward else 0.0, distill)


def distill_weight(config: DistillConfig, step: int, total: int) -> float:
    """Weight of the teacher term at ``step`` (from 0) of ``total``.

    It is 0 for ``delay`` steps and then moves from ``weight`` to ``weight_end``, which it reaches at the last step. A
    constant schedule stays at ``weight``.
    """
    if step < config.delay:
        return 0.0
    if config.schedule == "constant" or config.weight_end is None:
        return config.weight
    progress = (step - config.delay) / max(total - config.delay - 1, 1)
    share = progress if config.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * progress))
    return config.weight + (config.weight_end - config.weight) * share
