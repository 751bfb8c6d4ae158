"""One step's rollouts: prompts drawn, answered by the live student, rewarded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vold.config import RLConfig
from vold.data.pictures import text_for_teacher
from vold.data.prompts import Prompt
from vold.data.samplers import draw
from vold.data.sequences import TokenSequence
from vold.distributed import ALONE, Ranks
from vold.models import EncodedPrompt, Student
from vold.objectives.grpo import group_advantages
from vold.rewards import rewards
from vold.rollout.base import RolloutEngine, Sampling
from vold.seeding import derive
from vold.training.journal import Stopwatch


@dataclass(frozen=True, slots=True)
class Rollouts:
    """N = prompts x group_size completions, a group's side by side.

    texts: what the teacher reads of each prompt, None where it does not speak (pictures that it cannot see);
    logprobs [T]: under the policy that sampled; rewards, advantages [N]; truncated: how many hit the length limit.
    """

    texts: list[str | None]
    sequences: list[TokenSequence]
    logprobs: Tensor
    rewards: Tensor
    advantages: Tensor
    group_size: int
    truncated: int

    @property
    def lengths(self) -> list[int]:
        return [len(sequence.completion_ids) for sequence in self.sequences]

    @property
    def taught(self) -> Tensor:
        """Whether the teacher reads the rollout of each token [T]."""
        read = torch.tensor([text is not None for text in self.texts])
        return read.repeat_interleave(torch.tensor(self.lengths)).to(self.rewards.device)

    @property
    def zero_variance(self) -> Tensor:
        """Which groups' rewards are all equal [N / group_size]."""
        groups = self.rewards.view(-1, self.group_size)
        return (groups == groups[:, :1]).all(dim=1)


class Collector:
    """Draws prompts and lets ``engine`` answer them with the student's present weights."""

    def __init__(
        self,
        student: Student,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        config: RLConfig,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.student, self.engine, self.prompts, self.config = student, engine, prompts, config
        self.seed, self.ranks = seed, ranks
        self.sampling = Sampling(config.max_new_tokens, config.temperature, student.stop_ids, student.banned_ids)

    def collect(self, step: int, watch: Stopwatch) -> Rollouts:
        """This rank's rollouts of ``step``; every sample's seed is a function of (seed, step, place)."""
        config, size = self.config, self.config.group_size
        chosen = draw(self.seed, "prompts", len(self.prompts), config.prompts_per_step, step)
        places = self.ranks.share(range(len(chosen)), "prompts_per_step")
        prompts = [self.prompts[chosen[place]] for place in places]
        encoded = [self._encode(prompt) for prompt in prompts]
        with watch.part("rollout"):
            requests = [
                prompt.request([derive(self.seed, "rollout", step, place, sample) for sample in range(size)])
                for place, prompt in zip(places, encoded, strict=True)
            ]
            groups = self.engine.generate(requests, self.sampling)
        flat = [completion for group in groups for completion in group]
        asked = [prompt for prompt in prompts for _ in range(size)]
        with watch.part("reward"):
            scores = torch.tensor(rewards([self.student.decode(c.token_ids) for c in flat], asked))
        seen = [prompt for prompt in encoded for _ in range(size)]
        device = self.student.device
        return Rollouts(
            texts=[text_for_teacher(prompt, config.distill.pictures) for prompt in asked],
            sequences=[TokenSequence(p.ids, c.token_ids, p.pixels) for p, c in zip(seen, flat, strict=True)],
            logprobs=torch.tensor([value for c in flat for value in c.logprobs], device=device),
            rewards=scores.to(device),
            advantages=group_advantages(scores.view(-1, size), config.advantage_epsilon, config.advantage)
            .flatten()
            .to(device),
            group_size=size,
            truncated=sum(c.finish_reason == "length" for c in flat),
        )

    def _encode(self, prompt: Prompt) -> EncodedPrompt:
        try:
            return self.student.encode(prompt.messages(), prompt.images)
        except ValueError as error:
            raise ValueError(f"prompt {prompt.id!r}: {error}") from error
