"""The rollouts of one step: draws prompts, samples the student's completions and rewards them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from vold.config import Mask, RLConfig
from vold.data.images import text_for_teacher
from vold.data.prompts import Prompt
from vold.data.samplers import draw
from vold.distributed import ALONE, Ranks
from vold.models import EncodedPrompt, Student
from vold.models.packing import TokenSequence
from vold.objectives.distill import mask_share
from vold.objectives.grpo import group_advantages
from vold.rewards import rewards
from vold.rollout.base import Completion, RolloutEngine, RolloutRequest, Sampling
from vold.seeding import derive
from vold.training.journal import Stopwatch


@dataclass(frozen=True, slots=True)
class Rollouts:
    """N = prompts * group_size completions with T tokens in all. The completions of a group follow each other.

    texts: each prompt as the teacher reads it; None where it has images that the teacher cannot see.
    teacher_reads: which of the other rollouts the teacher reads: all, or those that this mask lets through.
    logprobs: [T], under the policy that sampled. entropies: [T], of that policy in nats; None where the engine does
    not measure them. rewards, advantages: [N]. truncated: number of completions that hit the length limit.
    refills: number of prompts that were tried in place of others whose rewards were all equal.
    discarded_tokens: completion tokens of the groups that were replaced.
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
    teacher_reads: Mask = "all"

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each completion [N]."""
        return [len(sequence.completion_ids) for sequence in self.sequences]

    @property
    def engine_measured_entropy(self) -> bool:
        """Whether the engine measured the entropies. The trainer then need not read rollouts without advantage."""
        return self.entropies is not None

    @property
    def teacher_texts(self) -> list[str | None]:
        """The prompts [N] of the rollouts that the teacher reads; None for the others."""
        shares = mask_share(self.rewards, self.teacher_reads).tolist()
        return [None if share == 0 else text for text, share in zip(self.texts, shares, strict=True)]

    @property
    def teacher_mask(self) -> Tensor:
        """Whether the teacher reads the rollout of each token: [T] bool."""
        mask = torch.tensor([text is not None for text in self.teacher_texts])
        return mask.repeat_interleave(torch.tensor(self.lengths)).to(self.rewards.device)

    @property
    def zero_variance(self) -> Tensor:
        """Whether the rewards of each group are all equal: [N / group_size] bool."""
        groups = self.rewards.view(-1, self.group_size)
        return (groups == groups[:, :1]).all(dim=1)


@dataclass(frozen=True, slots=True)
class _Group:
    """The completions of one prompt and their rewards."""

    prompt: Prompt
    encoded: EncodedPrompt
    completions: Sequence[Completion]
    rewards: tuple[float, ...]

    @property
    def lacks_signal(self) -> bool:
        """Whether all rewards are equal, so that the policy term learns nothing.

        A group with a reward that is not finite counts as having signal. It is not replaced, so that the fault shows.
        """
        return min(self.rewards) == max(self.rewards) and all(map(math.isfinite, self.rewards))

    @property
    def tokens(self) -> int:
        return sum(len(completion.completion_ids) for completion in self.completions)


def encode(student: Student, prompt: Prompt) -> EncodedPrompt:
    """The prompt as the student reads it. Raises ValueError naming the prompt when it cannot be encoded."""
    try:
        return student.encode(prompt.messages(), prompt.images)
    except ValueError as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from error


class Collector:
    """Draws the prompts of a step and samples completions from ``engine``."""

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

    def collect(self, step: int, watch: Stopwatch, refill: bool = True) -> Rollouts:
        """This rank's rollouts of ``step``. The seed of a sample is a function of (seed, step, position in the batch).

        A group whose rewards are all equal is replaced by that of another prompt, at most ``max_refills`` times; the
        last one tried stays. Positions do not depend on each other. So the batch is full, and it is the same for any
        number of ranks.

        refill: whether to replace groups at all.
        """
        config = self.config
        indices = draw(self.seed, "prompts", len(self.prompts), config.prompts_per_step, step)
        positions = self.ranks.share(range(len(indices)), "prompts_per_step")
        groups = dict(zip(positions, self._sample(indices, positions, ("rollout", step), watch), strict=True))
        refills = discarded = 0
        for attempt in range(config.max_refills if refill else 0):
            replaced = [position for position in positions if groups[position].lacks_signal]
            if not replaced:
                break
            batch = step * config.max_refills + attempt
            indices = draw(self.seed, "refills", len(self.prompts), config.prompts_per_step, batch)
            refills += len(replaced)
            discarded += sum(groups[position].tokens for position in replaced)
            groups |= zip(replaced, self._sample(indices, replaced, ("refill", step, attempt), watch), strict=True)
        return self._rollouts([groups[position] for position in positions], refills, discarded)

    def _sample(
        self, indices: Sequence[int], positions: Sequence[int], stream: tuple[str | int, ...], watch: Stopwatch
    ) -> list[_Group]:
        """A group for each of ``positions``, with the prompt ``indices[position]``.

        The seed of a sample is a function of ``stream``, position and number of the sample.
        """
        prompts, size = [self.prompts[indices[position]] for position in positions], self.config.group_size
        encoded_prompts = [encode(self.student, prompt) for prompt in prompts]
        with watch.part("rollout"):
            requests = [
                RolloutRequest.of(encoded, [derive(self.seed, *stream, position, sample) for sample in range(size)])
                for position, encoded in zip(positions, encoded_prompts, strict=True)
            ]
            groups = self.engine.generate(requests, self.sampling)
        with watch.part("reward"):
            texts = [self.student.decode(completion.completion_ids) for group in groups for completion in group]
            scores = iter(rewards(texts, [prompt for prompt in prompts for _ in range(size)]))
        return [
            _Group(prompt, encoded, completions, tuple(islice(scores, size)))
            for prompt, encoded, completions in zip(prompts, encoded_prompts, groups, strict=True)
        ]

    def _rollouts(self, groups: Sequence[_Group], refills: int, discarded_tokens: int) -> Rollouts:
        config, device = self.config, self.student.device
        flat = [(group, completion) for group in groups for completion in group.completions]
        scores = torch.tensor([group.rewards for group in groups])
        advantages = group_advantages(scores, config.advantage_epsilon, config.advantage)
        entropies = [value for _, completion in flat for value in completion.entropies or ()]
        measured = self.engine.live and all(completion.entropies is not None for _, completion in flat)
        return Rollouts(
            texts=[text_for_teacher(group.prompt, config.distill.images) for group, _ in flat],
            sequences=[
                TokenSequence(group.encoded.prompt_ids, completion.completion_ids, group.encoded.pixels)
                for group, completion in flat
            ],
            logprobs=torch.tensor([value for _, completion in flat for value in completion.logprobs], device=device),
            rewards=scores.flatten().to(device),
            advantages=advantages.flatten().to(device),
            group_size=config.group_size,
            truncated=sum(completion.finish_reason == "length" for _, completion in flat),
            refills=refills,
            discarded_tokens=discarded_tokens,
            entropies=torch.tensor(entropies, device=device) if measured else None,
        )
