"""GRPO and on-policy distillation: each reaches its goal and reports its metrics."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from vold.config import RLConfig
from vold.data.prompts import Prompt
from vold.execution import Execution
from vold.models import load_student
from vold.preflight.pair import PairError
from vold.rollout.base import Sampling
from vold.teacher import Teacher
from vold.training import rl, rollouts
from vold.training.metrics import KL_POSITIONS, METRICS
from vold.training.optim import NonFiniteError
from vold.training.rl import train_rl

EXECUTION = Execution(threads=1)
NAMES = {metric.name for metric in METRICS}
FIRST_ROW_ONLY = {"start_kl", "start_teacher_perplexity"}
BEYOND_THE_LIMIT = {f"kl_from_{start}" for start in KL_POSITIONS if start >= 12}


def config(**fields: object) -> RLConfig:
    small = {
        "steps": 3,
        "prompts_per_step": 4,
        "group_size": 4,
        "max_new_tokens": 12,
        "optimizer": {"learning_rate": 3e-3},
    }
    return RLConfig.model_validate(small | fields)


def train(
    cfg: RLConfig, student: Path, teacher: Path | None, prompts: Path, run: Path, **execution: object
) -> list[dict[str, float]]:
    settings = EXECUTION.model_copy(update=execution)
    train_rl(cfg, student=student, teacher=teacher, prompts=prompts, run=run, seed=1, execution=settings)
    return rows_of(run)


def rows_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def count_of_a(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """A reward that a random student sometimes gets."""
    return [float("a" in response) for response in responses]


@pytest.fixture
def easy_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "rewards", count_of_a)


def test_grpo_raises_the_reward_without_a_teacher(
    student_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    cfg = config(steps=15, group_size=8, optimizer={"learning_rate": 1e-2})
    rows = train(cfg, student_path, None, prompts, tmp_path / "run")
    start, end = (sum(row["reward_mean"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert start < 0.5 < 0.8 < end
    assert all(row["kl_sampled"] is None and row["loss_distill"] == 0 for row in rows)


@pytest.mark.parametrize("estimator", ["k2", "k1_advantage", "reverse_kl"])
def test_distillation_alone_brings_the_student_close_to_the_teacher(
    estimator: str, student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    cfg = config(
        steps=10, group_size=8, reward_weight=0, distill={"weight": 1.0, "estimator": estimator, "mask": "all"},
        optimizer={"learning_rate": 1e-2},
    )  # fmt: skip
    rows = train(cfg, student_path, teacher_path, prompts, tmp_path / "run")
    assert rows[-1]["kl_exact"] < 0.7 * rows[0]["kl_exact"]


def test_every_step_reports_every_metric(student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path) -> None:
    cfg = config(distill={"weight": 0.1, "monitor_every": 1})
    rows = train(cfg, student_path, teacher_path, prompts, tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0].keys() == NAMES - BEYOND_THE_LIMIT
    assert rows[0]["start_kl"] == rows[0]["kl_exact"]
    assert rows[0]["start_teacher_perplexity"] == rows[0]["teacher_perplexity"] > 1
    for row in rows:
        assert row.keys() - FIRST_ROW_ONLY == NAMES - BEYOND_THE_LIMIT - FIRST_ROW_ONLY
        assert row["loss"] == pytest.approx(row["loss_policy"] + 0.1 * row["loss_distill"], rel=1e-5)
        assert row["ratio_q05"] == row["ratio_q95"] == 1
        assert row["mismatch_q01"] == pytest.approx(1, abs=1e-3) == row["mismatch_q99"]
        assert row["tokens"] == pytest.approx(16 * row["completion_tokens"])
        assert row["kl_exact"] > 0 and row["clip_share"] == 0
    timing = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    parts = {"rollout", "reward", "teacher", "train", "step"}
    assert all({f"{part}_seconds" for part in parts} <= row.keys() for row in timing)


def test_the_kl_is_measured_only_on_monitor_steps_when_the_term_is_off(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    cfg = config(steps=6, distill={"weight": 0, "monitor_every": 3})
    rows = train(cfg, student_path, teacher_path, prompts, tmp_path / "run")
    assert [row["kl_exact"] is not None for row in rows] == [True, False, False, True, False, True]


def test_between_measurements_the_teacher_reads_only_what_gets_its_term(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, easy_reward: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    read: list[int] = []
    score = Teacher.score

    def counted(self: Teacher, texts: Sequence[str | None], completions: Sequence[tuple[int, ...]]) -> torch.Tensor:
        read.append(sum(text is not None for text in texts))
        return score(self, texts, completions)

    monkeypatch.setattr(Teacher, "score", counted)
    every, some = (
        train(
            config(steps=4, distill={"weight": 0.1, "monitor_every": n}), student_path, teacher_path, prompts,
            tmp_path / str(n),
        )
        for n in (1, 3)
    )  # fmt: skip
    wrong = [round(16 * (1 - row["reward_mean"])) for row in some]
    assert read == [16] * 4 + [16, wrong[1], wrong[2], 16] and 0 < wrong[1] < 16
    for index, (one, two) in enumerate(zip(every, some, strict=True)):
        assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)
        assert one["kl_wrong"] == pytest.approx(two["kl_wrong"], rel=1e-4)
        for name in ("kl_exact", "kl_sampled", "kl_right", "kl_from_0", "teacher_perplexity"):
            assert two[name] == (pytest.approx(one[name], rel=1e-4) if index in (0, 3) else None)


def test_measuring_the_kl_does_not_change_the_training(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    watched, alone = (
        train(config(distill={"weight": 0, "monitor_every": 1}), student_path, path, prompts, tmp_path / name)
        for path, name in ((teacher_path, "watched"), (None, "alone"))
    )
    for one, two in zip(watched, alone, strict=True):
        assert one["reward_mean"] == two["reward_mean"]
        assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)


@pytest.mark.parametrize("updates", [1, 2])
def test_measuring_the_gradient_norm_of_each_term_does_not_change_the_training(
    updates: int, student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    cfg = config(steps=4, group_size=8, updates_per_batch=updates, distill={"weight": 0.5})
    terms = ("gradient_norm_policy", "gradient_norm_distill")
    norms, rows, weights = [], [], []
    for every in (0, 1, 2):
        run = tmp_path / str(every)
        rows.append(train(cfg, student_path, teacher_path, prompts, run, gradient_norms_every=every))
        norms.append([[row.pop(name) for name in terms] for row in rows[-1]])
        weights.append((run / "out" / "model.safetensors").read_bytes())
    assert rows[0] == rows[1] == rows[2] and weights[0] == weights[1] == weights[2]
    never, always, sometimes = norms
    nothing = [None, None]
    assert never == [nothing] * 4 and sometimes == [always[0], nothing, always[2], always[3]]
    assert max(policy for policy, _ in always) > 0 and min(distill for _, distill in always) > 0
    for (policy, distill), row in zip(always, rows[0], strict=True):
        assert abs(policy - distill) * 0.999 < row["gradient_norm"] < (policy + distill) * 1.001


def test_a_term_without_the_other_has_the_whole_gradient(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    for name, other, fields in (
        ("policy", "distill", {"distill": {"weight": 0.5, "delay": 9}}),
        ("distill", "policy", {"distill": {"weight": 0.5}, "reward_weight": 0}),
    ):
        rows = train(config(**fields, group_size=8), student_path, teacher_path, prompts, tmp_path / name)
        for row in rows:
            assert row[f"gradient_norm_{name}"] == row["gradient_norm"] and row[f"gradient_norm_{other}"] == 0
        assert max(row["gradient_norm"] for row in rows) > 0


def test_an_engine_that_measures_the_entropy_changes_no_weight(
    student_path: Path, prompts: Path, tmp_path: Path, easy_reward: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(steps=4, group_size=2)
    measured = train(cfg, student_path, None, prompts, tmp_path / "measured")
    monkeypatch.setattr(rollouts, "Sampling", lambda *values, entropies: Sampling(*values))
    read = train(cfg, student_path, None, prompts, tmp_path / "read")
    assert any(0 < row["reward_zero_variance_share"] < 1 for row in measured)
    weights = [(tmp_path / name / "out/model.safetensors").read_bytes() for name in ("measured", "read")]
    assert weights[0] == weights[1]
    for one, two in zip(measured, read, strict=True):
        apart = {name for name in one if one[name] != two[name]}
        of_what_was_read = {"mismatch_q01", "mismatch_q99"}
        if one["reward_zero_variance_share"] == 1:  # nothing was
            of_what_was_read |= {"mismatch_outside_share", "ratio_q05", "ratio_q95"}
            assert all(one[name] is None for name in of_what_was_read)
        assert apart <= {"entropy", *of_what_was_read}
        assert one["entropy"] == pytest.approx(two["entropy"], rel=1e-4)


def test_with_reward_weight_zero_rewards_reach_only_the_mask(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(reward_weight=0, distill={"weight": 1.0, "mask": "all"})
    plain = train(cfg, student_path, teacher_path, prompts, tmp_path / "plain")
    monkeypatch.setattr(rollouts, "rewards", count_of_a)
    other = train(cfg, student_path, teacher_path, prompts, tmp_path / "other")
    assert [row["gradient_norm"] for row in plain] == [row["gradient_norm"] for row in other]
    assert [row["reward_mean"] for row in plain] != [row["reward_mean"] for row in other]


def test_a_run_in_two_parts_is_distillation_and_then_grpo_from_its_weights(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, easy_reward: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    adam = {"learning_rate": 1e-2, "warmup_steps": 1, "schedule": "linear"}
    fields = {"optimizer": adam, "max_refills": 0}
    opd = {"weight": 1.0, "mask": "wrong", "monitor_every": 0}
    both = config(steps=6, schedule="distill_then_reward", distill=opd, **fields)
    run = tmp_path / "both"
    rows = train(both, student_path, teacher_path, prompts, run, checkpoint_every=3)
    assert [(row["reward_weight"], row["distill_weight"]) for row in rows] == [(0, 1)] * 3 + [(1, 0)] * 3
    assert [row["kl_wrong"] is None for row in rows] == [False] * 3 + [True] * 3, "the teacher rests"

    distilled = config(steps=3, reward_weight=0, distill=opd, **fields)
    first = train(distilled, student_path, teacher_path, prompts, tmp_path / "first")
    assert first == rows[:3]
    # GRPO alone from the weights of the first part, on the prompts and random numbers of steps 3 to 5.
    draw, derive = rollouts.draw, rollouts.derive
    monkeypatch.setattr(rollouts, "draw", lambda seed, name, n, size, step: draw(seed, name, n, size, step + 3))
    monkeypatch.setattr(rollouts, "derive", lambda seed, name, step, *place: derive(seed, name, step + 3, *place))
    rewarded = config(steps=3, distill={"monitor_every": 0}, **fields)
    second = train(rewarded, tmp_path / "first/out", None, prompts, tmp_path / "second")
    ignored = {"step", "start_kl", "start_teacher_perplexity"}
    for one, two in zip(second, rows[3:], strict=True):
        assert {k: v for k, v in one.items() if k not in ignored} == {k: v for k, v in two.items() if k not in ignored}
    weights = [(tmp_path / name / "out/model.safetensors").read_bytes() for name in ("second", "both")]
    assert weights[0] == weights[1]


def test_the_placebo_needs_no_teacher_and_makes_unlikely_tokens_rarer(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    placebo = {"target": "placebo", "placebo_probability": 0.01, "weight": 1.0, "mask": "all"}
    cfg = config(steps=8, reward_weight=0, distill=placebo, optimizer={"learning_rate": 1e-2})
    rows = train(cfg, student_path, None, prompts, tmp_path / "alone")
    assert all(row["kl_sampled"] is None for row in rows)
    # In the first update of a batch, the loss is the share of tokens that were unlikely.
    assert 0.2 < rows[0]["loss_distill"] < 1 and rows[-1]["loss_distill"] < 0.5 * rows[0]["loss_distill"]
    watched = train(cfg, student_path, teacher_path, prompts, tmp_path / "watched")
    assert [row["kl_sampled"] is None for row in watched] == [False, *[True] * 6, False]
    weights = [(tmp_path / name / "out/model.safetensors").read_bytes() for name in ("alone", "watched")]
    assert weights[0] == weights[1]


def test_groups_are_replaced_only_in_steps_with_the_policy_term(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "rewards", lambda responses, prompts: [0.0] * len(responses))
    cfg = config(steps=2, schedule="distill_then_reward", algorithm="dapo", max_refills=3, distill={"weight": 1.0})
    rows = train(cfg, student_path, teacher_path, prompts, tmp_path / "run")
    assert [row["refills"] for row in rows] == [0, 3 * 4]


def test_several_updates_on_a_batch_change_the_ratio(
    student_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    cfg = config(updates_per_batch=3, group_size=8, optimizer={"learning_rate": 3e-2})
    rows = train(cfg, student_path, None, prompts, tmp_path / "run")
    assert any(row["ratio_q05"] < 0.9 and row["clip_share"] > 0 for row in rows)


def test_non_finite_steps_are_skipped_counted_and_end_the_run(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Teacher.score
    calls: list[int] = []

    def broken(self: Teacher, *arguments: object) -> torch.Tensor:
        calls.append(1)
        states = score(self, *arguments)  # type: ignore[arg-type]
        return states if len(calls) in (1, 3) else torch.full_like(states, torch.nan)

    monkeypatch.setattr(Teacher, "score", broken)
    cfg = config(steps=9, distill={"weight": 0.1}, max_nonfinite_steps=2)
    with pytest.raises(NonFiniteError, match="2 steps in a row"):
        train(cfg, student_path, teacher_path, prompts, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [0, 1, 0, 1]
    assert rows[1]["loss"] is None and rows[2]["loss"] is not None
    assert not (tmp_path / "run" / "out").exists()


def test_the_vision_tower_neither_changes_nor_runs(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

    def refuse(*arguments: object, **fields: object) -> None:
        raise AssertionError("vision tower ran")

    monkeypatch.setattr(modeling.Qwen2_5_VisionTransformerPretrainedModel, "forward", refuse)
    train(config(distill={"weight": 0.1}), student_path, teacher_path, prompts, tmp_path / "run")
    before = load_student(student_path).model.model.visual.state_dict()
    after = load_student(tmp_path / "run" / "out").model.model.visual.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_that_cannot_work_is_refused_before_the_first_step(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path, build_teacher, build_tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    distilled = config(distill={"weight": 0.1})
    with pytest.raises(ValueError, match="there is no teacher"):
        train(distilled, student_path, None, prompts, tmp_path / "a")
    other = build_teacher(tmp_path / "other", tokenizer=build_tokenizer(first=("shifted",)))
    with pytest.raises(PairError, match="another vocabulary"):
        train(distilled, student_path, other, prompts, tmp_path / "b")

    def failed() -> None:
        raise rl_error

    rl_error = RuntimeError("self-test")
    monkeypatch.setattr(rl, "self_test", failed)
    with pytest.raises(RuntimeError, match="self-test"):
        train(distilled, student_path, teacher_path, prompts, tmp_path / "c")
    assert not any((tmp_path / name / "metrics.jsonl").exists() for name in "abc")


def test_bfloat16_computes_about_the_same_with_float32_weights(
    student_path: Path, teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    cfg = config(steps=1, reward_weight=0, distill={"weight": 1.0, "estimator": "reverse_kl", "mask": "all"})
    (exact,) = train(cfg, student_path, teacher_path, prompts, tmp_path / "exact")
    execution = EXECUTION.model_copy(update={"dtype": "bfloat16"})
    train_rl(
        cfg, student=student_path, teacher=teacher_path, prompts=prompts, run=tmp_path / "half", seed=1,
        execution=execution,
    )  # fmt: skip
    half = json.loads((tmp_path / "half" / "metrics.jsonl").read_text())
    assert half["loss"] == pytest.approx(exact["loss"], rel=0.2)
    assert 0.8 < half["mismatch_q01"] < 1 < half["mismatch_q99"] < 1.25
    assert half["mismatch_outside_share"] < 0.1
    weights = load_student(tmp_path / "half" / "out").model.state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_groups_without_signal_are_replaced_by_those_of_other_prompts(
    student_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def even_prompts_have_signal(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        drawn.extend(prompt.id for prompt in prompts[::4])
        return [float(place % 4 == 0 and int(p.id[1:]) % 2 == 0) for place, p in enumerate(prompts)]

    monkeypatch.setattr(rollouts, "rewards", even_prompts_have_signal)
    plain = train(config(), student_path, None, prompts, tmp_path / "plain")
    assert all(row["refills"] == 0 for row in plain) and plain[0]["reward_zero_variance_share"] > 0
    drawn.clear()
    rows = train(config(max_refills=9), student_path, None, prompts, tmp_path / "refilled")
    assert all(row["reward_zero_variance_share"] == 0 for row in rows)
    assert sum(row["refills"] for row in rows) == len(drawn) - 3 * 4
    again = train(config(max_refills=9), student_path, None, prompts, tmp_path / "again")
    assert again == rows


def test_refilling_ends_and_the_batch_stays_full(
    student_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "rewards", lambda responses, prompts: [0.0] * len(responses))
    (row,) = train(config(steps=1, algorithm="dapo", max_refills=3), student_path, None, prompts, tmp_path / "run")
    assert row["refills"] == 3 * 4 and row["reward_zero_variance_share"] == 1
    assert row["gradient_norm"] == 0 and row["tokens"] > 0


@pytest.mark.parametrize("algorithm", ["dr_grpo", "dapo", "gspo", "cispo"])
def test_every_algorithm_raises_the_reward(
    algorithm: str, student_path: Path, prompts: Path, tmp_path: Path, easy_reward: None
) -> None:
    cfg = config(
        algorithm=algorithm, steps=12, group_size=8, updates_per_batch=2, optimizer={"learning_rate": 1e-2},
        engine_correction="sequence" if algorithm == "gspo" else "token", max_refills=0,
    )  # fmt: skip
    rows = train(cfg, student_path, None, prompts, tmp_path / "run")
    start, end = (sum(row["reward_mean"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert start < 0.6 < 0.75 < end
