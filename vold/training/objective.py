"""Gradients of the RL objective over one batch of rollouts, micro-batch by micro-batch."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vold.config import Execution, RLConfig
from vold.models import LanguageModel, Student
from vold.models.packing import completion_hidden, completion_targets, micro_batches, token_index
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import exact_divergence, mask_share, teacher_term
from vold.objectives.fused import BANNED, Head, TokenStats, head_loss, token_stats
from vold.objectives.grpo import per_sequence, policy_loss, truncated_importance
from vold.objectives.reduce import token_weights
from vold.training.optim import Backward
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
        return cls(Head(student.head, bias), None if teacher is None else Head(teacher.head, bias))


@dataclass(frozen=True, slots=True)
class Update:
    """Values of one pass over the rollouts: loss terms, and per-token arrays [T] without gradient.

    read: the tokens that the trainer has computed anew; the statistics of the others are the engine's.
    """

    loss: float
    policy: float
    distill: float
    stats: TokenStats
    clipped: Tensor
    read: Tensor


class Objective:
    """reward_weight * policy term + distill_weight * teacher term, with denominators of the whole batch."""

    def __init__(
        self,
        student: Student,
        teacher: LanguageModel | None,
        config: RLConfig,
        execution: Execution,
        optimizer: Backward | None = None,
    ) -> None:
        self.student, self.teacher, self.config, self.execution = student, teacher, config, execution
        self.optimizer = optimizer or Backward()

    def backward(
        self,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        distill_weight: float,
        old_logprobs: Tensor | None = None,
    ) -> Update:
        """Accumulate the gradients of this rank's ``rollouts``; the losses returned are its summands of the batch's.

        ``teacher_states`` [T, H] where the teacher has read them. ``old_logprobs`` [T]: the log-probabilities of the
        first update on these rollouts; None on that first update, whose weights are still those that sampled.
        """
        run = _Pass(self, rollouts, teacher_states, distill_weight, old_logprobs)
        budget, teaching = self.execution.micro_batch_tokens, run.teaching().tolist()
        some, none = ([row for row, teaches in enumerate(teaching) if teaches == wanted] for wanted in (True, False))
        for rows in self.optimizer.batches(micro_batches(rollouts.sequences, budget, some)):
            self.optimizer.accumulate(partial(run.loss, rows))
        if run.told:
            run.take_over(none)
        elif self.optimizer.ranks.max(len(none)):  # of any rank: all have to hand over their part of the weights
            with torch.no_grad(), self.optimizer.whole():
                for rows in micro_batches(rollouts.sequences, budget, none):
                    run.loss(rows)
        return run.update()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a micro-batch's tokens before their statistics; ``index``: their place in the rollouts."""

    index: Tensor
    sequence_log_ratio: Tensor | None
    sequence_correction: Tensor | None


class _Pass:
    """One update's pass over its rollouts."""

    def __init__(
        self,
        objective: Objective,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        distill_weight: float,
        old_logprobs: Tensor | None,
    ) -> None:
        self.rollouts, self.states, self.old = rollouts, teacher_states, old_logprobs
        self.config, self.execution, self.student = objective.config, objective.execution, objective.student
        self.teacher = None if teacher_states is None else objective.teacher
        self.distill_weight = distill_weight
        distill = self.config.distill
        self.divergence = exact_divergence(distill.estimator, distill.top_k) if distill_weight > 0 else None
        lengths, limit = torch.tensor(rollouts.lengths), self.config.max_new_tokens
        reduce, device, ranks = self.config.reduce, self.student.device, objective.optimizer.ranks
        everyones, own = ranks.gather(lengths), ranks.span(int(lengths.sum()))
        self.policy_weights = token_weights(everyones, reduce, limit=limit)[own].to(device)
        self.distill_weights = token_weights(everyones, distill.reduce or reduce, limit=limit)[own].to(device)
        # Unread tokens stay in the denominator, as masked ones do: beta means the same whatever else is in the batch.
        self.distill_weights *= rollouts.taught
        self.owner = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)
        self.seen: list[tuple[Tensor, TokenStats, dict[str, Tensor]]] = []
        self.read = torch.ones(len(self.owner), dtype=torch.bool, device=device)
        # What is wanted of a rollout without gradient is then known from the engine, which is the student itself: that
        # of the weights that sampled, with no teacher and an advantage of 0.
        self.told = (
            rollouts.entropies is not None
            and teacher_states is None
            and self.config.reward_weight > 0
            and self.config.updates_per_batch == 1
        )

    def teaching(self) -> Tensor:
        """Which rollouts [N] can have a gradient; the others are read for the metrics alone."""
        teaches = torch.zeros_like(self.rollouts.rewards, dtype=torch.bool)
        if self.config.reward_weight > 0:
            teaches |= self.rollouts.advantages != 0
        if self.distill_weight > 0:
            teaches |= mask_share(self.rollouts.rewards, self.config.distill.mask) != 0
        return teaches

    def loss(self, rows: list[int]) -> Tensor:
        """The summand of the rollouts ``rows``."""
        heads = Heads.of(self.student, self.teacher)
        part = [self.rollouts.sequences[row] for row in rows]
        targets = completion_targets(part, self.student.device)
        index = token_index(self.rollouts.lengths, rows).to(self.student.device)
        with precision(self.execution, self.student.device):
            hidden = completion_hidden(self.student, part)
            known = self._known(index, [len(s.completion_ids) for s in part], hidden.detach(), targets, heads.student)
            loss, _ = head_loss(
                hidden,
                heads.student,
                targets,
                lambda stats, span: self._loss(self._tokens(stats, known, span), stats, index[span]),
                temperature=self.config.temperature,
                teacher=None if self.states is None or heads.teacher is None else (self.states[index], heads.teacher),
                divergence=self.divergence,
            )
        return loss

    def take_over(self, rows: list[int]) -> None:
        """The engine's statistics of the rollouts ``rows``, which have neither loss nor gradient."""
        entropies = self.rollouts.entropies
        if not rows or entropies is None:
            return
        index = token_index(self.rollouts.lengths, rows).to(self.student.device)
        self.read[index] = False
        nothing = torch.zeros(len(index), device=self.student.device)
        terms = {"policy": nothing, "distill": nothing, "clipped": nothing.bool()}
        self.seen.append((index, TokenStats(self.rollouts.logprobs[index], entropies[index]), terms))

    def update(self) -> Update:
        """Everything that was learned, in the order of the rollouts."""
        terms, stats = self._in_order()
        policy, distill = (
            float(weights.dot(terms[name].double()))
            for name, weights in (("policy", self.policy_weights), ("distill", self.distill_weights))
        )
        loss = self.distill_weight * distill + (self.config.reward_weight * policy if self.config.reward_weight else 0)
        return Update(loss, policy, distill, stats, terms["clipped"], self.read)

    def _known(self, index: Tensor, lengths: list[int], hidden: Tensor, targets: Tensor, head: Head) -> _Known:
        """What a token takes from its whole rollout; a pass of its own, as a loss sees one token at a time."""
        of_ratio = self.config.ratio == "sequence"
        of_engine = self.config.engine_correction == "sequence"
        old, now = None if self.old is None else self.old[index], None
        if (of_ratio and old is not None) or (of_engine and old is None):
            now = token_stats(hidden, head, targets, temperature=self.config.temperature).logprobs
        size = torch.tensor(lengths, device=index.device)
        ratio = correction = None
        if of_ratio:
            moved = torch.zeros(len(index), device=index.device) if old is None or now is None else now - old
            ratio = per_sequence(moved, size, "mean")
        if of_engine:
            sampler = now if old is None else old
            assert sampler is not None
            against = per_sequence(sampler - self.rollouts.logprobs[index], size, "sum")
            correction = truncated_importance(against, self.config.engine_correction_cap)
        return _Known(index, ratio, correction)

    def _tokens(self, stats: TokenStats, known: _Known, span: slice) -> TokenBatch:
        index = known.index[span]
        # On the first update the weights are still those that sampled: the ratio is 1, and no other pass is needed.
        old = stats.logprobs.detach() if self.old is None else self.old[index]
        correction = None if known.sequence_correction is None else known.sequence_correction[span]
        if self.config.engine_correction == "token":
            correction = truncated_importance(old - self.rollouts.logprobs[index], self.config.engine_correction_cap)
        return TokenBatch(
            logprobs=stats.logprobs,
            old_logprobs=old,
            advantages=self.rollouts.advantages[self.owner[index]],
            rewards=self.rollouts.rewards[self.owner[index]],
            teacher_logprobs=stats.teacher_logprobs,
            kl=stats.kl,
            divergence=stats.divergence,
            sequence_log_ratio=None if known.sequence_log_ratio is None else known.sequence_log_ratio[span],
            correction=correction,
        )

    def _loss(self, batch: TokenBatch, stats: TokenStats, index: Tensor) -> Tensor:
        """Each token's share of the loss [n]; what it is made of is kept."""
        config = self.config
        policy, clipped = policy_loss(
            batch,
            ratio=config.ratio,
            surrogate=config.surrogate,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
        )
        loss = distill = torch.zeros_like(batch.logprobs)
        if config.reward_weight > 0:
            loss = config.reward_weight * policy * self.policy_weights[index]
        if self.distill_weight > 0:
            distill = teacher_term(batch, config.distill.estimator, config.distill.mask)
            loss = loss + self.distill_weight * distill * self.distill_weights[index]
        terms = {"policy": policy, "distill": distill, "clipped": clipped}
        self.seen.append((index, stats, {name: values.detach() for name, values in terms.items()}))
        return loss

    def _in_order(self) -> tuple[dict[str, Tensor], TokenStats]:
        """Per-token values [T] of all micro-batches, in the order of the rollouts."""
        if not self.seen:
            nothing = torch.zeros(0, device=self.student.device)
            return dict.fromkeys(("policy", "distill", "clipped"), nothing), TokenStats(nothing, nothing)
        order = torch.argsort(torch.cat([index for index, _, _ in self.seen]))
        terms = {name: torch.cat([terms[name] for _, _, terms in self.seen])[order] for name in self.seen[0][2]}
        return terms, TokenStats.cat([stats for _, stats, _ in self.seen]).at(order)
