"""Held-out prompts that are asked while the student learns, to watch what transfers (the paper: Geometry3K)."""

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
    """Asks ``prompts`` greedily every ``validate_every`` steps and before the last; trains on nothing."""

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
        """Mean reward over the prompts of all ranks with the weights before ``step``; None where it is not the time."""
        every = self.config.validate_every
        if not self.prompts or every == 0 or (step % every and step + 1 < self.config.steps):
            return None
        with watch.part("validation"):
            requests = [RolloutRequest.of(encode(self.student, prompt), (0,)) for prompt in self.prompts]
            groups = self.engine.generate(requests, self.sampling)
            scores = torch.tensor(rewards([self.student.decode(c.completion_ids) for (c,) in groups], self.prompts))
            total, count = self.ranks.sum(torch.tensor([float(scores.sum()), float(len(scores))])).tolist()
        return total / count
