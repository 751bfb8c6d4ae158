"""One step's rollouts: prompts drawn, answered by the live student, rewarded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from vold.config import RLConfig
from vold.data.images import text_for_teacher
from vold.data.prompts import Prompt
from vold.data.samplers import draw
from vold.distributed import ALONE, Ranks
from vold.models import EncodedPrompt, Student
from vold.models.packing import TokenSequence
from vold.objectives.grpo import group_advantages
from vold.rewards import rewards
from vold.rollout.base import Completion, RolloutEngine, RolloutRequest, Sampling
from vold.seeding import derive
from vold.training.journal import Stopwatch


@dataclass(frozen=True, slots=True)
class Rollouts:
    """N = prompts x group_size completions, a group's side by side.

    texts: what the teacher reads of each prompt, None where it does not speak (images that it cannot see);
    logprobs [T]: under the policy that sampled, entropies [T]: its own, in nats, None where the engine does not tell;
    rewards, advantages [N]; truncated: how many hit the length limit;
    refills: further prompts that were tried in place of some whose rewards were all equal, and discarded_tokens: the
    completion tokens of those that were replaced.
    """

    texts: list[str | None]
    sequences: list[TokenSequence]
    logprobs: Tensor
    rewards: Tensor
    advantages: Tensor
    group_size: int
    truncated: int
    refills: int = 0
    discarded_tokens: int = 0
    entropies: Tensor | None = None

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


@dataclass(frozen=True, slots=True)
class _Group:
    """One prompt's completions and their rewards."""

    prompt: Prompt
    encoded: EncodedPrompt
    completions: Sequence[Completion]
    rewards: tuple[float, ...]

    @property
    def settled(self) -> bool:
        """All rewards equal: the policy term learns nothing. One that is no number is a fault and stays in sight."""
        return min(self.rewards) == max(self.rewards) and all(map(math.isfinite, self.rewards))

    @property
    def tokens(self) -> int:
        return sum(len(completion.completion_ids) for completion in self.completions)


def encode(student: Student, prompt: Prompt) -> EncodedPrompt:
    """The prompt as the student reads it; raises ValueError naming the prompt."""
    try:
        return student.encode(prompt.messages(), prompt.images)
    except ValueError as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from error


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
        self.sampling = Sampling(
            config.max_new_tokens, config.temperature, student.stop_ids, student.banned_ids, entropies=True
        )

    def collect(self, step: int, watch: Stopwatch) -> Rollouts:
        """This rank's rollouts of ``step``; every sample's seed is a function of (seed, step, place).

        A group whose rewards are all equal is replaced by another prompt's, ``max_refills`` times at most; the last
        one tried stays. Places do not depend on each other, so the batch is full and the same on any number of ranks.
        """
        config = self.config
        chosen = draw(self.seed, "prompts", len(self.prompts), config.prompts_per_step, step)
        places = self.ranks.share(range(len(chosen)), "prompts_per_step")
        groups = dict(zip(places, self._answer(chosen, places, ("rollout", step), watch), strict=True))
        refills = discarded = 0
        for attempt in range(config.max_refills):
            settled = [place for place in places if groups[place].settled]
            if not settled:
                break
            turn = step * config.max_refills + attempt
            others = draw(self.seed, "refills", len(self.prompts), config.prompts_per_step, turn)
            refills += len(settled)
            discarded += sum(groups[place].tokens for place in settled)
            groups |= zip(settled, self._answer(others, settled, ("refill", step, attempt), watch), strict=True)
        return self._rollouts([groups[place] for place in places], refills, discarded)

    def _answer(
        self, chosen: Sequence[int], places: Sequence[int], stream: tuple[str | int, ...], watch: Stopwatch
    ) -> list[_Group]:
        """A group for each of ``places``, of the prompt ``chosen[place]``; samples are seeded by stream and place."""
        prompts, size = [self.prompts[chosen[place]] for place in places], self.config.group_size
        encoded = [encode(self.student, prompt) for prompt in prompts]
        with watch.part("rollout"):
            requests = [
                RolloutRequest.of(prompt, [derive(self.seed, *stream, place, sample) for sample in range(size)])
                for place, prompt in zip(places, encoded, strict=True)
            ]
            answers = self.engine.generate(requests, self.sampling)
        with watch.part("reward"):
            texts = [self.student.decode(completion.completion_ids) for group in answers for completion in group]
            scores = iter(rewards(texts, [prompt for prompt in prompts for _ in range(size)]))
        return [
            _Group(prompt, read, group, tuple(islice(scores, size)))
            for prompt, read, group in zip(prompts, encoded, answers, strict=True)
        ]

    def _rollouts(self, groups: Sequence[_Group], refills: int, discarded_tokens: int) -> Rollouts:
        config, device = self.config, self.student.device
        flat = [(group, completion) for group in groups for completion in group.completions]
        scores = torch.tensor([group.rewards for group in groups])
        advantages = group_advantages(scores, config.advantage_epsilon, config.advantage)
        entropies = [value for _, c in flat for value in c.entropies or ()]
        told = self.engine.live and all(c.entropies is not None for _, c in flat)
        return Rollouts(
            texts=[text_for_teacher(group.prompt, config.distill.images) for group, _ in flat],
            sequences=[
                TokenSequence(g.encoded.prompt_ids, completion.completion_ids, g.encoded.pixels)
                for g, completion in flat
            ],
            logprobs=torch.tensor([value for _, c in flat for value in c.logprobs], device=device),
            rewards=scores.flatten().to(device),
            advantages=advantages.flatten().to(device),
            group_size=config.group_size,
            truncated=sum(completion.finish_reason == "length" for _, completion in flat),
            refills=refills,
            discarded_tokens=discarded_tokens,
            entropies=torch.tensor(entropies, device=device) if told else None,
        )
