"""The RL objective: its loss and gradients over one batch of rollouts, micro-batch by micro-batch."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vold.config import RLConfig
from vold.execution import Execution
from vold.models import LanguageModel, Student
from vold.models.packing import completion_hidden, completion_targets, micro_batches, token_index
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import distill_term, exact_divergence, mask_share
from vold.objectives.fused import BANNED, Head, TokenStats, head_loss, token_stats
from vold.objectives.grpo import per_sequence, policy_loss, truncated_importance
from vold.objectives.reduce import token_weights
from vold.objectives.schedule import TermWeights
from vold.training.optim import Backward
from vold.training.rollouts import Rollouts
from vold.training.runtime import precision


@dataclass(frozen=True, slots=True)
class Heads:
    """The output heads of student and teacher over the token ids that the student can sample."""

    student: Head
    teacher: Head | None

    @classmethod
    def of(cls, student: LanguageModel, teacher: LanguageModel | None) -> "Heads":
        """Cut both heads to their common rows and ban the ids that sampling bans.

        The policy is the distribution that is sampled from; the teacher's is renormalized over the same ids.
        """
        rows = student.head.shape[0] if teacher is None else min(student.head.shape[0], teacher.head.shape[0])
        bias = torch.zeros(rows, device=student.device)
        bias[[index for index in student.banned_ids if index < rows]] = BANNED
        return cls(Head(student.head, bias), None if teacher is None else Head(teacher.head, bias))


@dataclass(frozen=True, slots=True)
class Update:
    """Values of one pass over the rollouts: the loss and its terms, and arrays [T] over tokens without gradient.

    clipped: bool, whether the clip bounds the token's policy term. trainer_mask: bool, whether the token's statistics
    were computed by the trainer; those of all other tokens are the engine's.
    """

    loss: float
    policy: float
    distill: float
    stats: TokenStats
    clipped: Tensor
    trainer_mask: Tensor


class Objective:
    """The RL loss: the policy term and the teacher term, each times its weight in the step.

    The denominators are those of the whole batch, over all ranks.
    """

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
        weights: TermWeights,
        old_logprobs: Tensor | None = None,
    ) -> Update:
        """Accumulate the gradients of this rank's ``rollouts``; returns this rank's summands of the batch's losses.

        teacher_states: [T, H], None where the teacher did not read the rollouts. old_logprobs: [T], the
        log-probabilities in the first update on these rollouts. None in that first update, whose weights are still
        those that sampled.
        """
        run = _Pass(self, rollouts, teacher_states, weights, old_logprobs)
        self._accumulate(run)
        measured = run.rows(with_gradient=False)
        if run.engine_statistics_suffice:
            run.add_engine_statistics(measured)
        # The maximum over ranks: to gather the whole weights, every rank has to take part.
        elif self.optimizer.ranks.max(len(measured)):
            with torch.no_grad(), self.optimizer.whole_weights():
                for rows in micro_batches(rollouts.sequences, self.execution.micro_batch_tokens, measured):
                    run.loss(rows)
        return run.update()

    def accumulate(
        self,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        weights: TermWeights,
        old_logprobs: Tensor | None = None,
    ) -> None:
        """Accumulate the gradients as ``backward`` does, and measure nothing."""
        self._accumulate(_Pass(self, rollouts, teacher_states, weights, old_logprobs))

    def _accumulate(self, run: "_Pass") -> None:
        """Accumulate the gradients of the rollouts that have one."""
        budget = self.execution.micro_batch_tokens
        trained = micro_batches(run.rollouts.sequences, budget, run.rows(with_gradient=True))
        for rows in self.optimizer.batches(trained):
            self.optimizer.accumulate(partial(run.loss, rows))


@dataclass(frozen=True, slots=True)
class _SequenceValues:
    """Values that the tokens of a micro-batch [n] take from their whole rollouts; ``index``: their token indices."""

    index: Tensor
    log_ratio: Tensor | None
    correction: Tensor | None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Results for some tokens [n]: their token indices, statistics and terms of the loss, without gradient."""

    index: Tensor
    stats: TokenStats
    terms: dict[str, Tensor]


class _Pass:
    """One update's pass over its rollouts, which collects the results of every micro-batch."""

    def __init__(
        self,
        objective: Objective,
        rollouts: Rollouts,
        teacher_states: Tensor | None,
        weights: TermWeights,
        old_logprobs: Tensor | None,
    ) -> None:
        self.rollouts, self.teacher_states, self.old_logprobs = rollouts, teacher_states, old_logprobs
        self.config, self.execution, self.student = objective.config, objective.execution, objective.student
        self.teacher = None if teacher_states is None else objective.teacher
        self.weights = weights
        distill = self.config.distill
        follows_teacher = weights.distill > 0 and distill.target == "teacher"
        self.divergence = exact_divergence(distill.estimator, distill.top_k) if follows_teacher else None
        lengths, limit = torch.tensor(rollouts.lengths), self.config.max_new_tokens
        reduce, device, ranks = self.config.reduce, self.student.device, objective.optimizer.ranks
        all_lengths, own = ranks.gather(lengths), ranks.span(int(lengths.sum()))
        self.policy_weights = token_weights(all_lengths, reduce, limit=limit)[own].to(device)
        self.distill_weights = token_weights(all_lengths, distill.reduce or reduce, limit=limit)[own].to(device)
        if follows_teacher:
            # Tokens that the teacher does not read stay in the denominator, as masked ones do. So the meaning of beta
            # does not depend on the rest of the batch.
            self.distill_weights *= rollouts.teacher_mask
        self.owner = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)
        self.chunks: list[_Chunk] = []
        self.trainer_mask = torch.ones(len(self.owner), dtype=torch.bool, device=device)
        # The metrics of a rollout without gradient need its log-probabilities and entropies under the weights that
        # sampled. An engine that decodes with the student's own weights has measured them already. A second update,
        # however, starts from the trainer's own log-probabilities.
        self.engine_statistics_suffice = (
            rollouts.engine_measured_entropy
            and (teacher_states is None or rollouts.teacher_reads != "all")
            and self.config.updates_per_batch == 1
        )

    def rows(self, with_gradient: bool) -> list[int]:
        """The rollouts that can have a gradient, or those that cannot, which are read only for the metrics."""
        flags = torch.zeros_like(self.rollouts.rewards, dtype=torch.bool)
        if self.weights.policy > 0:
            flags |= self.rollouts.advantages != 0
        if self.weights.distill > 0:
            flags |= mask_share(self.rollouts.rewards, self.config.distill.mask) != 0
        return [row for row, flag in enumerate(flags.tolist()) if flag == with_gradient]

    def loss(self, rows: list[int]) -> Tensor:
        """The summand of the loss that belongs to the rollouts ``rows``."""
        heads = Heads.of(self.student, self.teacher)
        part = [self.rollouts.sequences[row] for row in rows]
        targets = completion_targets(part, self.student.device)
        index = token_index(self.rollouts.lengths, rows).to(self.student.device)
        with precision(self.execution, self.student.device):
            hidden = completion_hidden(self.student, part)
            lengths = [len(sequence.completion_ids) for sequence in part]
            values = self._sequence_values(index, lengths, hidden.detach(), targets, heads.student)
            loss, _ = head_loss(
                hidden,
                heads.student,
                targets,
                lambda stats, span: self._loss(self._tokens(stats, values, span), stats, index[span]),
                temperature=self.config.temperature,
                teacher=None
                if self.teacher_states is None or heads.teacher is None
                else (self.teacher_states[index], heads.teacher),
                divergence=self.divergence,
            )
        return loss

    def add_engine_statistics(self, rows: list[int]) -> None:
        """Take the engine's statistics for the rollouts ``rows``, which have neither loss nor gradient."""
        entropies = self.rollouts.entropies
        if not rows or entropies is None:
            return
        index = token_index(self.rollouts.lengths, rows).to(self.student.device)
        self.trainer_mask[index] = False
        zeros = torch.zeros(len(index), device=self.student.device)
        terms = {"policy": zeros, "distill": zeros, "clipped": zeros.bool()}
        # The teacher did not read these rollouts. The arrays of those that it read must have values for them, too.
        teacher = None if self.teacher_states is None else zeros
        divergence = None if self.divergence is None else zeros
        stats = TokenStats(self.rollouts.logprobs[index], entropies[index], teacher, teacher, divergence)
        self.chunks.append(_Chunk(index, stats, terms))

    def update(self) -> Update:
        """The results of all micro-batches, in the order of the rollouts."""
        terms, stats = self._in_order()
        policy, distill = (
            float(weights.dot(terms[name].double()))
            for name, weights in (("policy", self.policy_weights), ("distill", self.distill_weights))
        )
        loss = self.weights.policy * policy + self.weights.distill * distill
        return Update(loss, policy, distill, stats, terms["clipped"], self.trainer_mask)

    def _sequence_values(
        self, index: Tensor, lengths: list[int], hidden: Tensor, targets: Tensor, head: Head
    ) -> _SequenceValues:
        """What a token takes from its whole rollout. It needs a pass of its own, as the loss sees one token at a time.

        index, targets: [n]; hidden: [n, H]; lengths: completion lengths of the micro-batch's rollouts, summing to n.
        """
        sequence_ratio = self.config.ratio == "sequence"
        sequence_correction = self.config.engine_correction == "sequence"
        old, current = None if self.old_logprobs is None else self.old_logprobs[index], None
        if (sequence_ratio and old is not None) or (sequence_correction and old is None):
            current = token_stats(hidden, head, targets, temperature=self.config.temperature).logprobs
        sizes = torch.tensor(lengths, device=index.device)
        log_ratio = correction = None
        if sequence_ratio:
            change = torch.zeros(len(index), device=index.device) if old is None or current is None else current - old
            log_ratio = per_sequence(change, sizes, "mean")
        if sequence_correction:
            sampler = current if old is None else old
            assert sampler is not None
            engine_log_ratio = per_sequence(sampler - self.rollouts.logprobs[index], sizes, "sum")
            correction = truncated_importance(engine_log_ratio, self.config.engine_correction_cap)
        return _SequenceValues(index, log_ratio, correction)

    def _tokens(self, stats: TokenStats, values: _SequenceValues, span: slice) -> TokenBatch:
        """The tokens ``span`` of a micro-batch as the losses take them."""
        index = values.index[span]
        # In the first update the weights are still those that sampled. The ratio is 1 and needs no further pass.
        old = stats.logprobs.detach() if self.old_logprobs is None else self.old_logprobs[index]
        correction = None if values.correction is None else values.correction[span]
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
            sequence_log_ratio=None if values.log_ratio is None else values.log_ratio[span],
            correction=correction,
        )

    def _loss(self, batch: TokenBatch, stats: TokenStats, index: Tensor) -> Tensor:
        """Each token's share of the loss [n]; keeps the terms that it is made of for ``update``."""
        config = self.config
        loss = policy = distill = torch.zeros_like(batch.logprobs)
        clipped = torch.zeros_like(loss, dtype=torch.bool)
        if self.weights.policy > 0:
            policy, clipped = policy_loss(
                batch,
                ratio=config.ratio,
                surrogate=config.surrogate,
                clip_low=config.clip_low,
                clip_high=config.clip_high,
            )
            loss = self.weights.policy * policy * self.policy_weights[index]
        if self.weights.distill > 0:
            distill = distill_term(batch, config.distill)
            loss = loss + self.weights.distill * distill * self.distill_weights[index]
        terms = {"policy": policy, "distill": distill, "clipped": clipped}
        self.chunks.append(_Chunk(index, stats, {name: values.detach() for name, values in terms.items()}))
        return loss

    def _in_order(self) -> tuple[dict[str, Tensor], TokenStats]:
        """The terms of the loss [T] and the statistics [T] of all tokens, in the order of the rollouts."""
        if not self.chunks:
            empty = torch.zeros(0, device=self.student.device)
            return dict.fromkeys(("policy", "distill", "clipped"), empty), TokenStats(empty, empty)
        order = torch.argsort(torch.cat([chunk.index for chunk in self.chunks]))
        names = self.chunks[0].terms
        terms = {name: torch.cat([chunk.terms[name] for chunk in self.chunks])[order] for name in names}
        return terms, TokenStats.cat([chunk.stats for chunk in self.chunks]).at(order)
