"""Validation prompts, answered during training to measure what transfers (in the paper: Geometry3K)."""

from collections.abc import Sequence

import torch

from vold.config import RLConfig
from vold.data.prompts import Prompt
from vold.distributed import ALONE, Ranks
from vold.models import Student
from vold.rewards import rewards
from vold.rollout.base import RolloutEngine, RolloutRequest, Sampling
from vold.training.journal import Stopwatch
from vold.training.rollouts import encode


class Validator:
    """Measures the reward of greedy completions every ``validate_every`` steps and in the last step.

    Nothing is trained on them.
    """

    def __init__(
        self,
        student: Student,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        config: RLConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self.student, self.engine, self.config, self.ranks = student, engine, config, ranks
        self.prompts = ranks.share(prompts, "the number of validation prompts") if prompts else prompts
        self.sampling = Sampling(config.max_new_tokens, 0.0, student.stop_ids, student.banned_ids)

    def measure(self, step: int, watch: Stopwatch) -> float | None:
        """Mean reward over the prompts of all ranks, with the weights before ``step``. None in all other steps."""
        every = self.config.validate_every
        if not self.prompts or every == 0 or (step % every and step + 1 < self.config.steps):
            return None
        with watch.part("validation"):
            requests = [RolloutRequest.of(encode(self.student, prompt), (0,)) for prompt in self.prompts]
            groups = self.engine.generate(requests, self.sampling)
            responses = [self.student.decode(completion.completion_ids) for (completion,) in groups]
            scores = torch.tensor(rewards(responses, self.prompts))
            total, count = self.ranks.sum(torch.tensor([float(scores.sum()), float(len(scores))])).tolist()
        return total / count
