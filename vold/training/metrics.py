"""What is measured at every step: names, units and meanings in one table, and sums that several ranks can add up."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vold.training.objective import Update
    from vold.training.rollouts import Rollouts

Metrics = dict[str, float | int | None]
"""One row: null where a value was not measured in this step, or is no finite number."""

KL_POSITIONS = (0, 16, 64, 256, 1024, 4096)
"""Where the position buckets of the KL begin, in tokens from the start of the completion."""

MISMATCH_BAND = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of a row."""

    name: str
    unit: str
    meaning: str


_KL = "KL(student, teacher), the exact one where it is computed, else the sampled one,"

METRICS: tuple[Metric, ...] = (
    Metric("step", "", "optimiser step, from 1"),
    Metric("loss", "", "what is minimised; with several updates on a batch, the last update's"),
    Metric("grad_norm", "", "norm of the gradient before clipping"),
    Metric("learning_rate", "", "of this step"),
    Metric("skipped", "0 or 1", "the weights were left alone, because something was not finite or nothing was sampled"),
    Metric("tokens", "tokens", "completion tokens that the step learned from"),
    Metric("reward_mean", "0 to 1", "mean reward of the rollouts"),
    Metric("reward_zero_variance_share", "share", "groups whose rewards are all equal: no signal for the policy term"),
    Metric("refills", "prompts", "tried in place of those whose rewards were all equal (max_refills); replaced groups "
           "are in no other value of the row"),
    Metric("validation_reward", "0 to 1", "mean reward of greedy answers to the validation prompts, before the update"),
    Metric("loss_policy", "", "policy term, before its weight"),
    Metric("loss_distill", "", "teacher term, before its weight"),
    Metric("distill_weight", "", "weight of the teacher term in this step"),
    Metric("kl_sampled", "nats a token", "mean of log p_student - log p_teacher over the sampled tokens"),
    Metric("kl_exact", "nats a token", "mean full-vocabulary KL(student, teacher)"),
    Metric("kl_wrong", "nats a token", f"{_KL} on rollouts with a reward below 0.5"),
    Metric("kl_right", "nats a token", f"{_KL} on the others"),
    *(Metric(f"kl_from_{start}", "nats a token", f"{_KL} from this position of the completion to the next of these")
      for start in KL_POSITIONS),
    Metric("teacher_perplexity", "", "the teacher's, of the student's rollouts: exp(mean negative log-probability)"),
    Metric("start_kl", "nats a token", f"{_KL} before the first update (first row only)"),
    Metric("start_teacher_perplexity", "", "teacher_perplexity before the first update (first row only)"),
    Metric("entropy", "nats a token", "of the student's distribution, mean over the sampled positions"),
    Metric("clip_share", "share", "tokens whose policy term is bounded by the clip"),
    Metric("ratio_q05", "", "5 % quantile of p_student / p_student before the batch's first update; 1 with one update"),
    Metric("ratio_q95", "", "95 % quantile of the same"),
    Metric("mismatch_q01", "", "1 % quantile of p_trainer / p_engine, both with the weights that sampled, over the "
           "tokens that the trainer read (groups without signal need no reading where the engine tells the entropy)"),
    Metric("mismatch_q99", "", "99 % quantile of the same"),
    Metric("mismatch_outside_share", "share", "tokens where the same is outside {} to {}".format(*MISMATCH_BAND)),
    Metric("completion_tokens", "tokens", "mean length of a completion"),
    Metric("truncated_share", "share", "completions that hit the length limit"),
    Metric("empty_share", "share", "completions without a token: they count in their group's mean and as sequences"),
    Metric("unread_share", "share", "rollouts whose images the teacher cannot see: no teacher term, no KL"),
    Metric("nonfinite_rewards", "rollouts", "rewards that are no finite number; any makes the step a skipped one"),
    Metric("nonfinite_logprobs", "tokens", "likewise the student's log-probabilities, by the trainer or by the engine"),
    Metric("nonfinite_teacher_logprobs", "tokens", "likewise the teacher's; such tokens are left out of the KL"),
    Metric("warn_teacher", "0 or 1", "there are nonfinite_teacher_logprobs"),
    Metric("warn_entropy", "0 or 1", "the entropy is a small part of what it was at first"),
    Metric("warn_truncation", "0 or 1", "too many completions hit the length limit"),
    Metric("warn_kl", "0 or 1", "the KL is a multiple of what it was at first"),
    Metric("warn_signal", "0 or 1", "no group has two different rewards"),
    Metric("warn_mismatch", "0 or 1", "engine and trainer disagree on too many tokens"),
)  # fmt: skip

TIMING: tuple[Metric, ...] = (
    Metric("step", "", "optimiser step, from 1"),
    Metric("step_seconds", "s", "the whole step, without its checkpoint"),
    Metric("rollout_seconds", "s", "sampling; likewise reward, validation, teacher, train, sync and checkpoint"),
    Metric("rollout_tokens_per_second", "tokens/s", "sampled tokens"),
    Metric("teacher_tokens_per_second", "tokens/s", "prompt and completion tokens that the teacher read"),
    Metric("train_tokens_per_second", "tokens/s", "prompt and completion tokens, forward and backward, once an update"),
    Metric(
        "peak_memory_bytes",
        "bytes",
        "first process's: on a GPU the peak of this step, else the most ever held",
    ),
)


def markdown(metrics: Sequence[Metric]) -> str:
    """The table as the documentation shows it."""
    lines = ["| name | unit | meaning |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{metric.name}` | {metric.unit} | {metric.meaning} |" for metric in metrics)])


@dataclass(frozen=True, slots=True)
class Totals:
    """What one rank saw, in a form that adds up to what a single rank would have seen.

    sums: plain sums (counts, shares of the loss); ratios: name to (numerator, denominator), a mean or share;
    samples: values [n] on the CPU whose quantiles are wanted. Every rank has the same names.
    """

    sums: Mapping[str, float]
    ratios: Mapping[str, tuple[float, float]]
    samples: Mapping[str, Tensor]

    def reduced(self, add: Callable[[Tensor], Tensor], gather: Callable[[Tensor], Tensor]) -> "Totals":
        """The totals of all ranks: ``add`` sums a float64 vector over them, ``gather`` lays 1-d tensors end to end."""
        flat = [*self.sums.values(), *(part for ratio in self.ratios.values() for part in ratio)]
        total = add(torch.tensor(flat, dtype=torch.float64)).tolist()
        pairs = total[len(self.sums) :]
        return Totals(
            sums=dict(zip(self.sums, total, strict=False)),
            ratios=dict(zip(self.ratios, zip(pairs[::2], pairs[1::2], strict=True), strict=True)),
            samples={name: gather(values) for name, values in self.samples.items()},
        )

    def mean(self, name: str) -> float | None:
        """A ratio's value; None when nothing was counted."""
        over, under = self.ratios.get(name, (0.0, 0.0))
        return over / under if under else None

    def quantiles(self, name: str, *shares: float) -> list[float | None]:
        """Linear quantiles of a sample; None when it is empty."""
        values = self.samples[name]
        return [None] * len(shares) if not len(values) else np.quantile(values.double().numpy(), shares).tolist()


def rollout_totals(rollouts: "Rollouts", first: "Update", last: "Update", max_new_tokens: int) -> Totals:
    """Totals of one batch of rollouts and of the first and last update on it (the same one when there is one).

    With several updates, losses, entropy and KL are the last one's; mismatch is the first one's, whose weights sampled.
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
    """Sums and counts of the KL in its several cuts, and of the teacher's negative log-probability."""
    starts = [start for start in KL_POSITIONS if start < max_new_tokens]
    names = ["kl_sampled", "kl_exact", "kl_wrong", "kl_right", *(f"kl_from_{s}" for s in starts), "teacher_nll"]
    found: dict[str, tuple[float, float]] = dict.fromkeys(names, (0.0, 0.0))
    stats = update.stats
    if stats.teacher_logprobs is None:
        return found
    usable = _read(rollouts, stats.teacher_logprobs)
    sampled = stats.logprobs - stats.teacher_logprobs
    best = sampled if stats.kl is None else stats.kl
    right = (rollouts.rewards >= 0.5).repeat_interleave(lengths)
    position = torch.arange(len(right), device=lengths.device)
    position -= (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    bucket = torch.bucketize(position, torch.tensor(starts, device=lengths.device), right=True) - 1
    found["kl_sampled"] = _sum_and_count(sampled[usable])
    found["teacher_nll"] = _sum_and_count(-stats.teacher_logprobs[usable])
    if stats.kl is not None:
        found["kl_exact"] = _sum_and_count(stats.kl[usable])
    cuts = {"kl_wrong": usable & ~right, "kl_right": usable & right}
    cuts |= {f"kl_from_{start}": usable & (bucket == place) for place, start in enumerate(starts)}
    return found | {name: _sum_and_count(best[chosen]) for name, chosen in cuts.items()}


def _first_kl(rollouts: "Rollouts", first: "Update") -> tuple[float, float]:
    """Sum and count of the KL under the weights that sampled, whatever further updates on the batch have changed."""
    stats = first.stats
    if stats.teacher_logprobs is None:
        return 0.0, 0.0
    best = stats.logprobs - stats.teacher_logprobs if stats.kl is None else stats.kl
    return _sum_and_count(best[_read(rollouts, stats.teacher_logprobs)])


def _read(rollouts: "Rollouts", teacher_logprobs: Tensor) -> Tensor:
    """Which tokens [T] the teacher read and gave a finite log-probability."""
    return teacher_logprobs.isfinite() & rollouts.teacher_mask


def rollout_metrics(totals: Totals, *, start: bool) -> Metrics:
    """The metrics of a step from the totals of all ranks; ``start`` names the first step's values of the pair."""
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
