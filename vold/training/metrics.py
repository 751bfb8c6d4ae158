"""The metrics of a training step: their names, units and meanings, and sums that can be added over ranks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vold.training.objective import Update
    from vold.training.rollouts import Rollouts

Metrics = dict[str, float | int | None]
"""The metrics of one step. A value is None where it was not measured in this step."""

KL_POSITIONS = (0, 16, 64, 256, 1024, 4096)
"""Positions at which the buckets of the KL begin, in tokens from the start of the completion."""

MISMATCH_BAND = (0.9, 1.1)
"""Range of p_trainer / p_engine in which trainer and engine count as agreeing on a token."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The description of one metric."""

    name: str
    unit: str
    meaning: str


_NATS = "nats per token"
_KL = "KL(student, teacher), exact where kl_exact is measured and sampled otherwise,"

METRICS: tuple[Metric, ...] = (
    Metric("step", "", "number of the step, from 1"),
    Metric("loss", "", "loss of the step; with several updates per batch, that of the last update"),
    Metric("gradient_norm", "", "norm of the gradient before clipping"),
    Metric("learning_rate", "", "learning rate of the step"),
    Metric("skipped", "0 or 1", "whether the weights were left unchanged, because a value was not finite or no token "
           "was sampled"),
    Metric("tokens", "tokens", "completion tokens that the step learned from"),
    Metric("reward_mean", "0 to 1", "mean reward of the rollouts"),
    Metric("reward_zero_variance_share", "share", "groups whose rewards are all equal, which give the policy term no "
           "signal"),
    Metric("refills", "prompts", "prompts tried in place of those whose rewards were all equal (max_refills); no other "
           "metric includes the replaced groups"),
    Metric("validation_reward", "0 to 1", "mean reward of greedy completions of the validation prompts, before the "
           "update"),
    Metric("loss_policy", "", "policy term, before its weight; 0 without a weight"),
    Metric("loss_distill", "", "teacher term or its placebo, before its weight; 0 without a weight"),
    Metric("reward_weight", "", "weight of the policy term in this step"),
    Metric("distill_weight", "", "weight of the teacher term in this step"),
    Metric("gradient_norm_policy", "", "norm of the gradient of the policy term alone, times its weight, before "
           "clipping; 0 without a weight"),
    Metric("gradient_norm_distill", "", "norm of the gradient of the teacher term alone, times its weight, before "
           "clipping; 0 without a weight"),
    Metric("kl_sampled", _NATS, "mean of log p_student - log p_teacher over the sampled tokens"),
    Metric("kl_exact", _NATS, "mean KL(student, teacher) over the whole vocabulary"),
    Metric("kl_wrong", _NATS, f"{_KL} on rollouts with a reward below 0.5"),
    Metric("kl_right", _NATS, f"{_KL} on all other rollouts"),
    *(Metric(f"kl_from_{start}", _NATS, f"{_KL} on the tokens from this position of the completion up to the next one "
             "listed here")
      for start in KL_POSITIONS),
    Metric("teacher_perplexity", "", "perplexity of rollouts under the teacher, exp(mean negative log-probability)"),
    Metric("start_kl", _NATS, f"{_KL} before the first update (only in the first row)"),
    Metric("start_teacher_perplexity", "", "teacher_perplexity before the first update (only in the first row)"),
    Metric("entropy", _NATS, "entropy of the student's distribution, mean over the sampled tokens"),
    Metric("clip_share", "share", "tokens whose policy term is bounded by the clip"),
    Metric("ratio_q05", "", "5 % quantile of p_student / p_student before the batch's first update; 1 if there is one "
           "update per batch"),
    Metric("ratio_q95", "", "95 % quantile of the same ratio"),
    Metric("mismatch_q01", "", "1 % quantile of p_trainer / p_engine, both with the weights that sampled, over the "
           "tokens that the trainer read (not rollouts without gradient if the engine measured their entropy)"),
    Metric("mismatch_q99", "", "99 % quantile of the same ratio"),
    Metric("mismatch_outside_share", "share", "tokens where that ratio is outside {} to {}".format(*MISMATCH_BAND)),
    Metric("completion_tokens", "tokens", "mean length of a completion"),
    Metric("truncated_share", "share", "completions that hit the length limit"),
    Metric("empty_share", "share", "completions without a token, which count as rollouts and in their group's mean"),
    Metric("unread_share", "share", "rollouts with images that the teacher cannot see, which have no teacher term and "
           "no KL"),
    Metric("nonfinite_rewards", "rollouts", "rewards that are not finite; a single one makes the step a skipped one"),
    Metric("nonfinite_logprobs", "tokens", "log-probabilities of the student, from trainer or engine, that are not "
           "finite; a single one makes the step a skipped one"),
    Metric("nonfinite_teacher_logprobs", "tokens", "log-probabilities of the teacher that are not finite; the KL "
           "leaves these tokens out"),
    Metric("warn_teacher", "0 or 1", "nonfinite_teacher_logprobs is above 0"),
    Metric("warn_entropy", "0 or 1", "the entropy fell below a small share of its first value"),
    Metric("warn_truncation", "0 or 1", "too many completions hit the length limit"),
    Metric("warn_kl", "0 or 1", "the KL grew to a multiple of its first value"),
    Metric("warn_signal", "0 or 1", "no group has two different rewards"),
    Metric("warn_mismatch", "0 or 1", "engine and trainer disagree on too many tokens"),
)  # fmt: skip

TIMING: tuple[Metric, ...] = (
    Metric("step", "", "number of the step, from 1"),
    Metric("step_seconds", "s", "the whole step, without its training state"),
    Metric("rollout_seconds", "s", "sampling; likewise for reward, validation, teacher, "
           "gradient_norms, train, sync and checkpoint"),
    Metric("rollout_tokens_per_second", "tokens/s", "sampled tokens"),
    Metric("teacher_tokens_per_second", "tokens/s", "prompt and completion tokens that the teacher read"),
    Metric("train_tokens_per_second", "tokens/s", "prompt and completion tokens, forward and backward, per update"),
    Metric("peak_memory_bytes", "bytes", "peak memory of the first process: on a GPU in this step, on a CPU since its "
           "start"),
)  # fmt: skip


def markdown(metrics: Sequence[Metric]) -> str:
    """The table of the documentation. Neighbours with the same unit and meaning share a row."""
    lines = ["| name | unit | meaning |", "|---|---|---|"]
    for (unit, meaning), group in groupby(metrics, lambda metric: (metric.unit, metric.meaning)):
        names = ", ".join(f"`{metric.name}`" for metric in group)
        lines.append(f"| {names} | {unit} | {meaning} |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over one rank's rollouts. Added over ranks, they equal those of a single rank with all rollouts.

    sums: plain sums (counts, summands of the loss). ratios: (numerator, denominator) of each mean or share.
    samples: values [n] on the CPU from which quantiles are computed. Every rank has the same names.
    """

    sums: Mapping[str, float]
    ratios: Mapping[str, tuple[float, float]]
    samples: Mapping[str, Tensor]

    def reduced(self, add: Callable[[Tensor], Tensor], gather: Callable[[Tensor], Tensor]) -> "Totals":
        """The totals of all ranks: ``add`` sums a float64 vector over them, ``gather`` concatenates 1-d tensors."""
        flat = [*self.sums.values(), *(part for ratio in self.ratios.values() for part in ratio)]
        total = add(torch.tensor(flat, dtype=torch.float64)).tolist()
        pairs = total[len(self.sums) :]
        return Totals(
            sums=dict(zip(self.sums, total, strict=False)),
            ratios=dict(zip(self.ratios, zip(pairs[::2], pairs[1::2], strict=True), strict=True)),
            samples={name: gather(values) for name, values in self.samples.items()},
        )

    def mean(self, name: str) -> float | None:
        """The value of a ratio. None if its denominator is 0."""
        numerator, denominator = self.ratios.get(name, (0.0, 0.0))
        return numerator / denominator if denominator else None

    def quantiles(self, name: str, *shares: float) -> list[float | None]:
        """Linearly interpolated quantiles of a sample. They are None if it is empty."""
        values = self.samples[name]
        return [None] * len(shares) if not len(values) else np.quantile(values.double().numpy(), shares).tolist()


def rollout_totals(rollouts: "Rollouts", first: "Update", last: "Update", max_new_tokens: int) -> Totals:
    """Totals of one batch of rollouts and of the first and last update on it, which are the same if there is only one.

    Losses, entropy and KL are those of the last update. The mismatch is that of the first, whose weights sampled.
    """
    stats, lengths = last.stats, torch.tensor(rollouts.lengths, device=rollouts.rewards.device)
    count, flat = len(lengths), rollouts.zero_variance
    ratio = (stats.logprobs - first.stats.logprobs)[first.trainer_mask].exp().cpu()
    mismatch = (first.stats.logprobs - rollouts.logprobs)[first.trainer_mask].exp().cpu()
    outside = (mismatch < MISMATCH_BAND[0]) | (mismatch > MISMATCH_BAND[1])
    student = first.stats.logprobs + stats.logprobs + rollouts.logprobs
    return Totals(
        sums={
            "loss": last.loss,
            "loss_policy": last.policy,
            "loss_distill": last.distill,
            "tokens": float(lengths.sum()),
            "refills": float(rollouts.refills),
            "nonfinite_rewards": _nonfinite(rollouts.rewards),
            "nonfinite_logprobs": _nonfinite(student),
            "nonfinite_teacher_logprobs": _nonfinite(stats.teacher_logprobs),
        },
        ratios={
            "reward_mean": _sum_and_count(rollouts.rewards),
            "reward_zero_variance_share": _sum_and_count(flat),
            "completion_tokens": _sum_and_count(lengths),
            "truncated_share": (float(rollouts.truncated), float(count)),
            "empty_share": _sum_and_count(lengths == 0),
            "unread_share": (float(sum(text is None for text in rollouts.texts)), float(count)),
            "entropy": _sum_and_count(stats.entropy),
            "clip_share": _sum_and_count(last.clipped),
            "mismatch_outside_share": _sum_and_count(outside),
            **_teacher_ratios(rollouts, last, lengths, max_new_tokens),
            "first_kl": _first_kl(rollouts, first),
        },
        samples={"ratio": ratio, "mismatch": mismatch},
    )


def _teacher_ratios(
    rollouts: "Rollouts", update: "Update", lengths: Tensor, max_new_tokens: int
) -> dict[str, tuple[float, float]]:
    """Sums and counts of the KL, overall and by reward and position, and of the teacher's negative log-probability.

    If the teacher read only the rollouts that a mask lets through, there is only the KL on wrong or on right rollouts:
    a mean over all rollouts is not known then.
    """
    starts = [start for start in KL_POSITIONS if start < max_new_tokens]
    names = ["kl_sampled", "kl_exact", "kl_wrong", "kl_right", *(f"kl_from_{s}" for s in starts), "teacher_nll"]
    ratios: dict[str, tuple[float, float]] = dict.fromkeys(names, (0.0, 0.0))
    stats = update.stats
    if stats.teacher_logprobs is None:
        return ratios
    usable = _usable(rollouts, stats.teacher_logprobs)
    sampled = stats.logprobs - stats.teacher_logprobs
    kl = sampled if stats.kl is None else stats.kl
    right = (rollouts.rewards >= 0.5).repeat_interleave(lengths)
    if rollouts.teacher_reads == "wrong":
        return ratios | {"kl_wrong": _sum_and_count(kl[usable & ~right])}
    if rollouts.teacher_reads == "correct":
        return ratios | {"kl_right": _sum_and_count(kl[usable & right])}
    position = torch.arange(len(right), device=lengths.device)
    position -= (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    bucket = torch.bucketize(position, torch.tensor(starts, device=lengths.device), right=True) - 1
    ratios["kl_sampled"] = _sum_and_count(sampled[usable])
    ratios["teacher_nll"] = _sum_and_count(-stats.teacher_logprobs[usable])
    if stats.kl is not None:
        ratios["kl_exact"] = _sum_and_count(stats.kl[usable])
    masks = {"kl_wrong": usable & ~right, "kl_right": usable & right}
    masks |= {f"kl_from_{start}": usable & (bucket == number) for number, start in enumerate(starts)}
    return ratios | {name: _sum_and_count(kl[mask]) for name, mask in masks.items()}


def _first_kl(rollouts: "Rollouts", first: "Update") -> tuple[float, float]:
    """Sum and count of the KL before the first update on the batch, under the weights that sampled."""
    stats = first.stats
    if stats.teacher_logprobs is None or rollouts.teacher_reads != "all":
        return 0.0, 0.0
    kl = stats.logprobs - stats.teacher_logprobs if stats.kl is None else stats.kl
    return _sum_and_count(kl[_usable(rollouts, stats.teacher_logprobs)])


def _usable(rollouts: "Rollouts", teacher_logprobs: Tensor) -> Tensor:
    """Whether the teacher read a token and gave it a finite log-probability: [T] bool."""
    return teacher_logprobs.isfinite() & rollouts.teacher_mask


def rollout_metrics(totals: Totals, *, start: bool) -> Metrics:
    """The metrics of a step from the totals of all ranks. start: whether to add the metrics of the first step."""
    teacher_nll = totals.mean("teacher_nll")
    perplexity = None if teacher_nll is None else math.exp(min(teacher_nll, 700.0))
    row: Metrics = {
        **totals.sums,
        **{name: totals.mean(name) for name in totals.ratios if name not in ("first_kl", "teacher_nll")},
        "teacher_perplexity": perplexity,
        **dict(zip(("ratio_q05", "ratio_q95"), totals.quantiles("ratio", 0.05, 0.95), strict=True)),
        **dict(zip(("mismatch_q01", "mismatch_q99"), totals.quantiles("mismatch", 0.01, 0.99), strict=True)),
    }
    for name in ("tokens", "refills", "nonfinite_rewards", "nonfinite_logprobs", "nonfinite_teacher_logprobs"):
        row[name] = int(totals.sums[name])
    if start:
        row |= {"start_kl": totals.mean("first_kl"), "start_teacher_perplexity": perplexity}
    return row


def _sum_and_count(values: Tensor) -> tuple[float, float]:
    return float(values.double().sum()), float(values.numel())


def _nonfinite(values: Tensor | None) -> float:
    return 0.0 if values is None else float((~values.isfinite()).sum())
