"""What each fault of a step leads to, and the warnings of a run that goes wrong."""

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vold.config import RLConfig
from vold.execution import Execution, HealthConfig
from vold.models import load_student
from vold.objectives.fused import TokenLoss, TokenStats
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.training import objective, rollouts
from vold.training.health import Health
from vold.training.optim import NonFiniteError
from vold.training.rl import train_rl

CONFIG = {
    "steps": 3, "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8, "optimizer": {"learning_rate": 1e-3},
}  # fmt: skip
Row = dict[str, float]


@pytest.fixture
def train(student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path) -> Callable[..., list[Row]]:
    """Train three steps and return the rows. There is a teacher if ``weight`` or ``monitor`` needs one."""

    def run(weight: float = 0.0, monitor: int = 0, **fields: object) -> list[Row]:
        config = RLConfig.model_validate(CONFIG | {"distill": {"weight": weight, "monitor_every": monitor}} | fields)
        teacher = teacher_path if weight or monitor else None
        train_rl(
            config, student=student_path, teacher=teacher, prompts=prompts, run=tmp_path / "run", seed=1,
            execution=Execution(threads=1),
        )  # fmt: skip
        return rows(tmp_path)

    return run


def rows(tmp_path: Path) -> list[Row]:
    return [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]


def in_step(monkeypatch: pytest.MonkeyPatch, step: int, rewards: Sequence[float]) -> None:
    """Give the rollouts of one step these rewards, and those of all others alternating ones."""
    calls: list[int] = []

    def scored(responses: Sequence[str], prompts: object) -> list[float]:
        calls.append(1)
        return list(rewards) if len(calls) == step else [float(place % 2) for place in range(len(responses))]

    monkeypatch.setattr(rollouts, "rewards", scored)


@pytest.mark.parametrize(
    "infinite", [[math.inf] * 8, [math.inf, *[0.0] * 7], [math.nan] * 8], ids=["all", "one", "nan"]
)
def test_a_reward_that_is_not_finite_skips_the_step(
    infinite: list[float],
    train: Callable[..., list[Row]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    in_step(monkeypatch, 2, infinite)
    metrics = train()
    assert [row["skipped"] for row in metrics] == [0, 1, 0]
    assert [row["nonfinite_rewards"] > 0 for row in metrics] == [False, True, False]
    assert any("step 2: the step was skipped" in text for text in caplog.messages)


def test_all_equal_groups_give_no_gradient_and_a_warning(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_step(monkeypatch, 2, [1.0] * 4 + [0.0] * 4)
    metrics = train()
    assert [row["gradient_norm"] == 0 for row in metrics] == [False, True, False]
    assert [row["reward_zero_variance_share"] for row in metrics] == [0, 1, 0]
    assert [row["warn_signal"] for row in metrics] == [0, 1, 0] and not any(row["skipped"] for row in metrics)
    assert any("step 2: in every group all rewards are equal (mean 0.5)" in text for text in caplog.messages)


def emptied(monkeypatch: pytest.MonkeyPatch, step: int, samples: int) -> None:
    """Make the first ``samples`` completions of each group empty in one step."""
    generate, calls = BuiltinEngine.generate, []

    def some(self: BuiltinEngine, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        calls.append(1)
        groups = generate(self, requests, sampling)
        if len(calls) != step:
            return groups
        return [[Completion((), (), "stop")] * samples + group[samples:] for group in groups]

    monkeypatch.setattr(BuiltinEngine, "generate", some)


def test_an_empty_completion_counts_in_its_group_and_has_no_tokens(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_step(monkeypatch, 0, [])
    emptied(monkeypatch, 2, samples=1)
    metrics = train(weight=0.1)
    assert [row["empty_share"] for row in metrics] == [0, 0.25, 0]
    assert metrics[1]["reward_mean"] == 0.5 and metrics[1]["gradient_norm"] > 0 and not metrics[1]["skipped"]
    assert metrics[1]["tokens"] == 8 * metrics[1]["completion_tokens"]


def test_a_batch_of_nothing_but_empty_completions_is_skipped(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied(monkeypatch, 2, samples=4)
    metrics = train(weight=0.1)
    assert [row["skipped"] for row in metrics] == [0, 1, 0]
    assert metrics[1]["tokens"] == 0 and metrics[1]["kl_exact"] is None and metrics[1]["entropy"] is None


def improbable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher gives the first token of every micro-batch a probability of 0."""
    whole = objective.head_loss

    def never(stats: TokenStats, span: slice) -> TokenStats:
        if stats.teacher_logprobs is None or stats.kl is None:
            return stats
        first = torch.arange(len(stats.logprobs)) + span.start == 0
        teacher_logprobs = stats.teacher_logprobs.masked_fill(first, -torch.inf)
        return replace(stats, teacher_logprobs=teacher_logprobs, kl=stats.kl.masked_fill(first, torch.inf))

    def zeroed(hidden: object, head: object, targets: object, loss: TokenLoss, **fields: object) -> object:
        return whole(hidden, head, targets, lambda stats, span: loss(never(stats, span), span), **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(objective, "head_loss", zeroed)


def test_a_teacher_probability_of_zero_skips_steps_until_the_run_ends(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    improbable(monkeypatch)
    with pytest.raises(NonFiniteError, match="3 steps in a row"):
        train(weight=0.1, steps=5)
    assert [(row["skipped"], row["warn_teacher"]) for row in rows(tmp_path)] == [(1, 1), (1, 1)]
    assert sum("the teacher's log-probability of" in text for text in caplog.messages) == 1, "logged only once"


def test_a_teacher_probability_of_zero_is_harmless_while_the_kl_is_only_measured(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    improbable(monkeypatch)
    for row in train(monitor=1):
        assert row["warn_teacher"] == 1 and row["skipped"] == 0
        assert math.isfinite(row["kl_exact"]) and math.isfinite(row["kl_sampled"])


def test_engine_log_probabilities_that_are_nan_skip_the_step(
    train: Callable[..., list[Row]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, student_path: Path
) -> None:
    generate = BuiltinEngine.generate

    def broken(self: BuiltinEngine, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        groups = generate(self, requests, sampling)
        return [[replace(c, logprobs=(math.nan,) * len(c.logprobs)) for c in group] for group in groups]

    monkeypatch.setattr(BuiltinEngine, "generate", broken)
    in_step(monkeypatch, 0, [])
    (row, _) = train(steps=2)
    assert row["skipped"] == 1 and row["nonfinite_logprobs"] == row["tokens"]
    after = load_student(tmp_path / "run" / "out").model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in load_student(student_path).model.state_dict().items())


FINE = {
    "step": 1, "entropy": 2.0, "truncated_share": 0.1, "kl_exact": 0.3, "kl_sampled": 0.31, "skipped": 0,
    "reward_zero_variance_share": 0.2, "reward_mean": 0.4, "mismatch_outside_share": 0.0,
    "nonfinite_teacher_logprobs": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("alarm", "fields"),
    [
        ("warn_entropy", {"entropy": 0.19}),
        ("warn_truncation", {"truncated_share": 0.51}),
        ("warn_kl", {"kl_exact": 0.91}),
        ("warn_kl", {"kl_exact": None, "kl_sampled": 0.94}),
        ("warn_mismatch", {"mismatch_outside_share": 0.11}),
        ("warn_signal", {"reward_zero_variance_share": 1.0}),
        ("warn_teacher", {"nonfinite_teacher_logprobs": 2}),
        ("skipped", {"skipped": 1}),
    ],
)
def test_each_alarm_is_raised_only_for_its_own_reason(
    alarm: str, fields: dict[str, float | None], caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(HealthConfig())
    assert not any(health.check(FINE).values()) and not caplog.messages
    flags = health.check(FINE | {"step": 2} | fields)
    assert [name for name, flag in flags.items() if flag] == [alarm]
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("step 2: ")
    assert not any(health.check(FINE | {"step": 3}).values())


def test_an_alarm_is_logged_when_it_begins_and_a_skipped_step_every_time(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(HealthConfig())
    for step in (1, 2, 3, 5, 16, 17):
        health.check(FINE | {"step": step, "truncated_share": 0.9})
    assert [text.split(":")[0] for text in caplog.messages] == ["step 1", "step 16"]
    caplog.clear()
    for step in (18, 19):
        health.check(FINE | {"step": step, "skipped": 1})
    assert [text.split(":")[0] for text in caplog.messages] == ["step 18", "step 19"]


def test_a_small_kl_may_grow_without_an_alarm() -> None:
    health = Health(HealthConfig())
    health.check(FINE | {"kl_exact": 0.05})
    assert health.check(FINE | {"kl_exact": 0.45})["warn_kl"] == 0


def test_a_resumed_run_remembers_first_values_and_repeats_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    low = FINE | {"step": 2, "entropy": 0.1}
    health = Health(HealthConfig(), [FINE, low])
    assert not caplog.messages
    assert health.check(low | {"step": 3})["warn_entropy"] == 1 and not caplog.messages


def test_a_row_without_rollouts_has_only_the_alarms_it_can_raise(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Health(HealthConfig()).check({"step": 1, "loss": math.nan, "skipped": 1, "gradient_norm": 1.0}) == {
            "skipped": 1
        }
    assert "loss nan, gradient norm 1" in caplog.messages[0]
