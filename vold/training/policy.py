"""Gradients of the RL objective over one batch of rollouts, micro-batch by micro-batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vold.config import Execution, RLConfig
from vold.data.sequences import completion_hidden, completion_targets, micro_batches, token_index
from vold.models import LanguageModel, Student
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import teacher_term
from vold.objectives.fused import BANNED, Head, TokenStats, token_stats
from vold.objectives.grpo import clipped_surrogate
from vold.objectives.reduce import token_weights, weighted_sum
from vold.training.rollouts import Rollouts
from vold.training.runtime import precision


@dataclass(frozen=True, slots=True)
class Heads:
    """Student's and teacher's output heads over the ids that the student can draw."""

    student: Head
    teacher: Head | None

    @classmethod
    def of(cls, student: LanguageModel, teacher: LanguageModel | None) -> "Heads":
        """Cut both heads to their common rows and ban what sampling bans.

        The policy is the distribution that is sampled; the teacher is conditioned on the same ids.
        """
        rows = student.head.shape[0] if teacher is None else min(student.head.shape[0], teacher.head.shape[0])
        bias = torch.zeros(rows, device=student.device)
        bias[[index for index in student.banned_ids if index < rows]] = BANNED
        return cls(
            Head(student.head[:rows], bias),
            None if teacher is None else Head(teacher.head[:rows], bias),
        )


@dataclass(frozen=True, slots=True)
class Update:
    """Values of one pass over the rollouts: loss terms, and per-token arrays [T] without gradient."""

    loss: float
    policy: float
    distill: float
    stats: TokenStats
    clipped: Tensor


class Objective:
    """reward_weight * L_GRPO + distill.weight * teacher term, with denominators of the whole batch."""

    def __init__(self, student: Student, teacher: LanguageModel | None, config: RLConfig, execution: Execution) -> None:
        self.student, self.teacher, self.config, self.execution = student, teacher, config, execution

    def backward(self, rollouts: Rollouts, teacher_states: Tensor | None) -> Update:
        """Accumulate the gradients of ``rollouts``; ``teacher_states`` [T, H] where the teacher has read them."""
        lengths, device = rollouts.lengths, self.student.device
        weights = token_weights(torch.tensor(lengths), self.config.reduce).to(device)
        owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(device)
        heads = Heads.of(self.student, None if teacher_states is None else self.teacher)
        sums = torch.zeros(3, dtype=torch.float64)
        kept: list[tuple[Tensor, TokenStats, Tensor]] = []
        for rows in micro_batches(rollouts.sequences, self.execution.micro_batch_tokens):
            index = token_index(lengths, rows).to(device)
            states = None if teacher_states is None else teacher_states[index]
            stats = self._stats(rollouts, rows, heads, states)
            batch = self._tokens(rollouts, stats, index, owner[index])
            terms, clipped = self._terms(batch, weights[index])
            terms[0].backward()
            sums += torch.tensor([term.item() for term in terms], dtype=torch.float64)
            kept.append((index, stats, clipped))
        stats, clipped = _in_order(kept) if kept else (TokenStats(*torch.zeros(2, 0, device=device)), torch.zeros(0))
        loss, policy, distill = sums.tolist()
        return Update(loss, policy, distill, stats, clipped)

    def _stats(self, rollouts: Rollouts, rows: list[int], heads: Heads, states: Tensor | None) -> TokenStats:
        part = [rollouts.sequences[row] for row in rows]
        targets = completion_targets(part, self.student.device)
        with precision(self.execution, self.student.device):
            return token_stats(
                completion_hidden(self.student, part),
                heads.student,
                targets,
                temperature=self.config.temperature,
                teacher=None if states is None or heads.teacher is None else (states, heads.teacher),
                kl_gradient=self.config.distill.weight > 0 and self.config.distill.estimator == "reverse_kl",
            )

    def _tokens(self, rollouts: Rollouts, stats: TokenStats, index: Tensor, owner: Tensor) -> TokenBatch:
        # With one update the weights are still those that sampled: the ratio is 1, and no old log-prob is needed.
        fresh = self.config.updates_per_batch == 1
        return TokenBatch(
            logprobs=stats.logprobs,
            old_logprobs=stats.logprobs.detach() if fresh else rollouts.logprobs[index],
            advantages=rollouts.advantages[owner],
            rewards=rollouts.rewards[owner],
            teacher_logprobs=stats.teacher_logprobs,
            kl=stats.kl,
        )

    def _terms(self, batch: TokenBatch, weights: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """(loss, policy term, teacher term) and which tokens the clip bounds."""
        config = self.config
        surrogate, clipped = clipped_surrogate(batch, config.clip_low, config.clip_high)
        policy = weighted_sum(surrogate, weights)
        distill = torch.zeros((), device=weights.device)
        if config.distill.weight > 0:
            distill = weighted_sum(teacher_term(batch, config.distill.estimator, config.distill.mask), weights)
        return (config.reward_weight * policy + config.distill.weight * distill, policy, distill), clipped


def _in_order(kept: list[tuple[Tensor, TokenStats, Tensor]]) -> tuple[TokenStats, Tensor]:
    """Put the micro-batches' per-token values back into the order of the rollouts."""
    order = torch.argsort(torch.cat([index for index, _, _ in kept]))

    def gather(values: list[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat([v.detach() for v in values if v is not None])[order]

    stats = [stats for _, stats, _ in kept]
    logprobs, entropy = gather([s.logprobs for s in stats]), gather([s.entropy for s in stats])
    clipped = gather([c for _, _, c in kept])
    assert logprobs is not None and entropy is not None and clipped is not None
    return TokenStats(
        logprobs, entropy, gather([s.teacher_logprobs for s in stats]), gather([s.kl for s in stats])
    ), clipped
