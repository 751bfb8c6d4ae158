"""Every metric against plain arithmetic over single tokens, on one rank and summed over several."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vold.config import Mask
from vold.models.packing import TokenSequence
from vold.objectives.fused import TokenStats
from vold.training.health import ALARMS
from vold.training.metrics import METRICS, TIMING, Totals, markdown, rollout_metrics, rollout_totals
from vold.training.objective import Update
from vold.training.rollouts import Rollouts

LENGTHS = [3, 20, 0, 70, 1, 18]
REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
LIMIT = 80


def batch(rows: slice = slice(0, 6), seed: int = 0) -> tuple[Rollouts, Update]:
    """Rows of a batch of two groups of three, with random log-probabilities for each token."""
    starts = [sum(LENGTHS[:row]) for row in range(7)]
    span = slice(starts[rows.start], starts[rows.stop])
    random = torch.Generator().manual_seed(seed)
    student, engine, teacher = (-torch.rand(sum(LENGTHS), generator=random) for _ in range(3))
    entropy, kl = (torch.rand(sum(LENGTHS), generator=random) for _ in range(2))
    rollouts = Rollouts(
        texts=["?"] * len(LENGTHS[rows]),
        sequences=[TokenSequence((1, 2), (5,) * length) for length in LENGTHS[rows]],
        logprobs=(student + 0.2 * (engine + 0.5))[span],
        rewards=torch.tensor(REWARDS[rows]),
        advantages=torch.zeros(len(LENGTHS[rows])),
        group_size=3,
        truncated=int(rows.stop == 6),
    )
    stats = TokenStats(student[span], entropy[span], teacher[span], kl[span])
    read = torch.ones(sum(LENGTHS[rows]), dtype=torch.bool)
    return rollouts, Update(0.25 * len(LENGTHS[rows]), 0.5, 0.75, stats, (entropy > 0.5)[span], read)


def measured(rollouts: Rollouts, update: Update) -> dict[str, float | int | None]:
    return rollout_metrics(rollout_totals(rollouts, update, update, LIMIT), start=True)


def test_means_are_over_single_tokens() -> None:
    rollouts, update = batch()
    row = measured(rollouts, update)
    kl, teacher = update.stats.kl, update.stats.teacher_logprobs
    assert kl is not None and teacher is not None
    tokens = [(r, place) for r, length in enumerate(LENGTHS) for place in range(length)]

    def mean_kl(wanted: list[bool]) -> float:
        chosen = [float(value) for value, want in zip(kl, wanted, strict=True) if want]
        return sum(chosen) / len(chosen)

    expected = {
        "kl_exact": mean_kl([True] * len(tokens)),
        "start_kl": mean_kl([True] * len(tokens)),
        "kl_right": mean_kl([REWARDS[r] == 1 for r, _ in tokens]),
        "kl_wrong": mean_kl([REWARDS[r] == 0 for r, _ in tokens]),
        "kl_from_0": mean_kl([place < 16 for _, place in tokens]),
        "kl_from_16": mean_kl([16 <= place < 64 for _, place in tokens]),
        "kl_from_64": mean_kl([place >= 64 for _, place in tokens]),
        "kl_sampled": float((update.stats.logprobs - teacher).mean()),
        "teacher_perplexity": math.exp(-float(teacher.mean())),
        "start_teacher_perplexity": math.exp(-float(teacher.mean())),
        "entropy": float(update.stats.entropy.mean()),
        "clip_share": float(update.clipped.float().mean()),
        "reward_mean": 4 / 6,
        "reward_zero_variance_share": 0.5,
        "completion_tokens": 112 / 6,
        "truncated_share": 1 / 6,
        "empty_share": 1 / 6,
        "unread_share": 0,
        "tokens": 112,
        "loss": 1.5,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_the_kl_covers_only_the_tokens_that_the_teacher_read() -> None:
    rollouts, update = batch()
    rollouts = replace(rollouts, texts=["?", None, "?", None, "?", "?"])
    row = measured(rollouts, update)
    kl, teacher = update.stats.kl, update.stats.teacher_logprobs
    assert kl is not None and teacher is not None
    read = torch.tensor([r not in (1, 3) for r, length in enumerate(LENGTHS) for _ in range(length)])
    assert row["kl_exact"] == pytest.approx(float(kl[read].mean()))
    assert row["kl_sampled"] == pytest.approx(float((update.stats.logprobs - teacher)[read].mean()))
    assert row["teacher_perplexity"] == pytest.approx(math.exp(-float(teacher[read].mean())))
    assert row["kl_wrong"] is None and row["unread_share"] == pytest.approx(2 / 6)


@pytest.mark.parametrize(("mask", "name", "reward"), [("wrong", "kl_wrong", 0.0), ("correct", "kl_right", 1.0)])
def test_the_kl_is_logged_only_on_rollouts_of_which_the_teacher_read_all(mask: Mask, name: str, reward: float) -> None:
    rollouts, update = batch()
    row = measured(replace(rollouts, teacher_reads=mask), update)
    kl = update.stats.kl
    assert kl is not None
    read = torch.tensor([r == reward for r, length in zip(REWARDS, LENGTHS, strict=True) for _ in range(length)])
    assert row[name] == pytest.approx(float(kl[read].mean()))
    others = {other for other in row if "kl" in other or "teacher_perplexity" in other} - {name}
    assert len(others) > 8 and {row[other] for other in others} == {None}
    assert row["unread_share"] == 0, "which is about images"


def test_the_mismatch_is_between_trainer_and_engine_and_the_ratio_between_updates() -> None:
    rollouts, first = batch()
    moved = replace(first.stats, logprobs=first.stats.logprobs + math.log(1.5))
    row = rollout_metrics(rollout_totals(rollouts, first, replace(first, stats=moved), LIMIT), start=False)
    assert row["ratio_q05"] == pytest.approx(1.5) == row["ratio_q95"]
    off = sorted(math.exp(float(a - b)) for a, b in zip(first.stats.logprobs, rollouts.logprobs, strict=True))
    assert row["mismatch_outside_share"] == pytest.approx(sum(not 0.9 <= value <= 1.1 for value in off) / len(off))
    low, high = row["mismatch_q01"], row["mismatch_q99"]
    assert low is not None and off[0] < low < off[2] and high is not None and off[-3] < high < off[-1]


def test_the_mismatch_covers_only_the_tokens_that_the_trainer_read() -> None:
    rollouts, first = batch()
    read = torch.arange(len(first.trainer_mask)) % 3 == 0
    row = measured(rollouts, replace(first, trainer_mask=read))
    off = (first.stats.logprobs - rollouts.logprobs).exp()[read].tolist()
    assert row["mismatch_outside_share"] == pytest.approx(sum(not 0.9 <= value <= 1.1 for value in off) / len(off))
    assert row["mismatch_q99"] == pytest.approx(float(np.quantile(off, 0.99)))
    assert row["entropy"] == pytest.approx(float(first.stats.entropy.mean()))
    nothing = measured(rollouts, replace(first, trainer_mask=torch.zeros_like(read)))
    assert nothing["mismatch_q01"] is None and nothing["mismatch_outside_share"] is None


@pytest.mark.parametrize("exact", [True, False])
def test_the_start_kl_is_that_of_the_weights_that_sampled(exact: bool) -> None:
    rollouts, first = batch()
    teacher = first.stats.teacher_logprobs
    assert teacher is not None
    stats = first.stats if exact else replace(first.stats, kl=None)
    moved = replace(stats, logprobs=stats.logprobs + 1, kl=None if stats.kl is None else stats.kl + 1)
    totals = rollout_totals(rollouts, replace(first, stats=stats), replace(first, stats=moved), LIMIT)
    row = rollout_metrics(totals, start=True)
    start = stats.logprobs - teacher if stats.kl is None else stats.kl
    assert row["start_kl"] == pytest.approx(float(start.mean()))
    assert row["kl_exact" if exact else "kl_sampled"] == pytest.approx(float(start.mean()) + 1)


def test_two_ranks_add_up_to_one() -> None:
    single = measured(*batch())
    shards = [batch(slice(0, 3)), batch(slice(3, 6))]
    parts = [rollout_totals(rollouts, update, update, LIMIT) for rollouts, update in shards]

    vectors: list[Tensor] = []
    parts[1].reduced(lambda vector: vectors.append(vector) or vector, lambda values: values)
    samples = iter(parts[1].samples.values())
    summed = parts[0].reduced(lambda v: v + vectors[0], lambda v: torch.cat([v, next(samples)]))
    shared = {"loss": 1.5, "loss_policy": 1.0, "loss_distill": 1.5}  # each rank holds its share of these
    assert rollout_metrics(summed, start=True) == pytest.approx(single | shared, rel=1e-12)


def test_a_metric_that_was_not_measured_is_null() -> None:
    rollouts, update = batch()
    alone = replace(update, stats=TokenStats(update.stats.logprobs, update.stats.entropy))
    row = measured(rollouts, alone)
    names = {name for name in row if "kl" in name} | {"teacher_perplexity", "start_teacher_perplexity"}
    assert {row[name] for name in names} == {None}
    sampled = replace(update, stats=replace(update.stats, kl=None))
    assert measured(rollouts, sampled)["kl_exact"] is None
    assert measured(rollouts, sampled)["kl_wrong"] is not None, "the sampled KL takes its place"
    empty = Totals(sums={"loss": 0.0}, ratios={"entropy": (0.0, 0.0)}, samples={"ratio": torch.zeros(0)})
    assert empty.mean("entropy") is None and empty.quantiles("ratio", 0.5) == [None]


def test_values_that_are_not_finite_are_counted_and_the_kl_leaves_out_those_of_the_teacher() -> None:
    rollouts, update = batch()
    before = measured(rollouts, update)
    teacher, kl = update.stats.teacher_logprobs, update.stats.kl
    assert teacher is not None and kl is not None
    teacher[5], kl[5] = -math.inf, math.inf
    rollouts.rewards[0], rollouts.logprobs[7], update.stats.logprobs[8] = math.inf, math.nan, math.nan
    row = measured(rollouts, update)
    assert (row["nonfinite_rewards"], row["nonfinite_logprobs"], row["nonfinite_teacher_logprobs"]) == (1, 2, 1)
    assert row["kl_exact"] == pytest.approx(before["kl_exact"], abs=0.02)
    assert {"nonfinite_rewards", "kl_exact", "teacher_perplexity"} <= {
        n for n, v in row.items() if math.isfinite(v or 0)
    }


def test_the_documentation_contains_the_tables() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert markdown(METRICS) in text and markdown(TIMING) in text


def test_the_table_names_each_metric_once_and_every_alarm() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {alarm.name for alarm in ALARMS} | {alarm.needs for alarm in ALARMS} <= set(names)
