"""The value and gradient of the RL objective against a plain computation, for any split of the batch."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from vold.config import DistillConfig, Mask, RLConfig
from vold.execution import Execution
from vold.models import LanguageModel, Student, freeze, load_student
from vold.models.packing import TokenSequence
from vold.objectives import fused
from vold.objectives.schedule import TermWeights, term_weights
from vold.teacher import Teacher
from vold.training import objective as objective_module
from vold.training.objective import Objective
from vold.training.optim import Optimizer
from vold.training.rollouts import Rollouts

COMPLETIONS = [(40, 41, 42), (43,), (44, 45, 46, 47, 48), (49, 50), (51, 52, 53, 54), (55, 56)]
REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
ADVANTAGES = [1.4, -0.7, -0.7, 0.5, 0.5, -1.0]
POLICY = TermWeights(1.0, 0.0)


@pytest.fixture
def fresh(student_path: Path) -> Student:
    model = load_student(student_path)
    freeze(model, ("vision",))
    return model


def rollouts(student: Student, offset: float = 0.0) -> Rollouts:
    """Two groups of three. The log-probabilities of the engine are those of the student, shifted by ``offset``."""
    texts = ["a"] * 3 + ["longer prompt"] * 3
    sequences = [TokenSequence(student.encode_text(t), c) for t, c in zip(texts, COMPLETIONS, strict=True)]
    with torch.no_grad():
        old = torch.cat([plain_logprobs(student, s.prompt_ids, s.completion_ids)[1] for s in sequences]) + offset
    return Rollouts(
        list[str | None](texts),
        sequences,
        old.float(),
        torch.tensor(REWARDS),
        torch.tensor(ADVANTAGES),
        group_size=3,
        truncated=0,
    )


def plain_logprobs(
    model: LanguageModel, prompt: tuple[int, ...], completion: tuple[int, ...], banned: tuple[int, ...] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-softmax over the student's reachable ids [C, V], that of the completion's tokens [C]), one row alone."""
    logits = model.model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].double()
    allowed = torch.ones(300, dtype=torch.bool)
    allowed[list(model.banned_ids if banned is None else banned)] = False
    logprobs = logits[:, :300].masked_fill(~allowed, -1e30).log_softmax(-1)
    return logprobs, logprobs.gather(1, torch.tensor(completion)[:, None])[:, 0]


def plain_loss(
    student: Student, teacher: LanguageModel, config: RLConfig, ratio: float, unread: tuple[int, ...] = ()
) -> torch.Tensor:
    """reward_weight * L_GRPO + weight * E[mask(r) * KL], written out row by row; no KL on ``unread`` rows."""
    banned = student.banned_ids
    texts = ["a"] * 3 + ["longer prompt"] * 3
    rows = []
    for text, completion, reward, advantage in zip(texts, COMPLETIONS, REWARDS, ADVANTAGES, strict=True):
        full, logprobs = plain_logprobs(student, student.encode_text(text), completion)
        with torch.no_grad():
            theirs, their_logprobs = plain_logprobs(teacher, teacher.encode_text(text), completion, banned)
        scale = ratio * (logprobs - logprobs.detach()).exp()
        if config.ratio == "sequence":
            scale = scale.log().mean().exp().expand(len(logprobs))
        low, high = 1 - config.clip_low, 1 + config.clip_high
        if config.surrogate == "cispo":
            policy = -scale.detach().clamp(low, high) * advantage * logprobs
        else:
            policy = -torch.minimum(scale * advantage, scale.clamp(low, high) * advantage)
        kl = (full.exp() * (full - theirs)).sum(-1)
        sampled = (logprobs - their_logprobs).detach()
        # The engine's probabilities are 1 / 1.5 of the trainer's if there is one update, and otherwise the same.
        mismatch = 1.5 if config.updates_per_batch == 1 else 1.0
        correction = {"off": 1.0, "token": mismatch, "sequence": mismatch ** len(logprobs)}[config.engine_correction]
        correction = min(correction, config.engine_correction_cap)
        estimated = {
            "k2": 0.5 * (logprobs - their_logprobs) ** 2,
            "k1_advantage": sampled * logprobs,
            "k1_control": (sampled - kl.detach()) * logprobs,
            "k3_forward": (their_logprobs - logprobs).exp() - (their_logprobs - logprobs) - 1,
        }
        exact = {"reverse_kl": kl, "forward_kl": (theirs.exp() * (theirs - full)).sum(-1)}
        name = config.distill.estimator
        kl = estimated[name] * correction if name in estimated else exact[name]
        if config.distill.target == "placebo":
            unlikely = logprobs.detach().exp() / ratio < config.distill.placebo_probability
            assert len(rows) != 2 or unlikely.any() > unlikely.all(), "some of the longest, not all"
            kl = unlikely * ratio * (logprobs - logprobs.detach()).exp() * correction
        policy = policy * correction
        mask = {"wrong": 1 - reward, "correct": reward, "all": 1.0}[config.distill.mask]
        weight = 0 if len(rows) in unread else config.distill.weight
        rows.append(config.reward_weight * policy + weight * mask * kl)
    if config.reduce == "token_mean":
        return torch.cat(rows).mean()
    if config.reduce == "constant":
        return torch.cat(rows).sum() / (len(rows) * config.max_new_tokens)
    return torch.stack([row.mean() for row in rows]).mean()


CASES: list[dict[str, object]] = [
    {"distill": {"weight": 0.1}},
    {"distill": {"weight": 0.1, "mask": "correct"}, "reduce": "sequence_mean"},
    {"distill": {"weight": 1.0, "estimator": "reverse_kl", "mask": "all"}},
    {"distill": {"weight": 0.5, "estimator": "k1_advantage"}, "reward_weight": 0.0},
    {"reduce": "sequence_mean"},
    {"updates_per_batch": 2, "distill": {"weight": 0.1}},
    {"algorithm": "dr_grpo", "max_new_tokens": 8, "distill": {"weight": 0.5, "estimator": "forward_kl", "mask": "all"}},
    {
        "algorithm": "gspo",
        "updates_per_batch": 2,
        "clip_high": 0.6,
        "distill": {"weight": 0.1, "estimator": "k1_control"},
    },
    {"algorithm": "gspo", "engine_correction": "sequence", "distill": {"weight": 0.1, "estimator": "k3_forward"}},
    {"algorithm": "cispo", "updates_per_batch": 2, "engine_correction": "sequence", "engine_correction_cap": 3.0},
    {"engine_correction": "token", "engine_correction_cap": 1.2, "distill": {"weight": 0.1}},
    {"distill": {"weight": 0.5, "target": "placebo", "placebo_probability": 0.002}},
    {
        "updates_per_batch": 2,
        "engine_correction": "token",
        "distill": {"weight": 0.5, "target": "placebo", "placebo_probability": 0.002},
    },
    {"algorithm": "dapo", "engine_correction": "token", "distill": {"weight": 0.1, "estimator": "reverse_kl"}},
]


@pytest.mark.parametrize("fields", CASES)
def test_loss_and_gradients_equal_the_plain_formula_for_any_micro_batch_and_chunk(
    fields: dict[str, object], fresh: Student, teacher: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RLConfig.model_validate(fields)
    ratio = 1.0 if config.updates_per_batch == 1 else 1.5
    batch = rollouts(fresh, offset=-math.log(1.5))
    states = Teacher(teacher, 30).score(batch.texts, [s.completion_ids for s in batch.sequences])
    old = None if config.updates_per_batch == 1 else batch.logprobs
    plain = plain_loss(fresh, teacher, config, ratio)
    plain.backward()
    expected = {name: p.grad.clone() for name, p in fresh.model.named_parameters() if p.grad is not None}
    assert expected
    for budget, chunk in ((1, 1 << 20), (40, 1 << 20), (10_000, 3 * 300)):
        for name in ("head_loss", "token_stats"):
            monkeypatch.setattr(objective_module, name, partial(getattr(fused, name), chunk_elements=chunk))
        fresh.model.zero_grad(set_to_none=True)
        objective = Objective(fresh, teacher, config, Execution(micro_batch_tokens=budget))
        update = objective.backward(batch, states, term_weights(config, 0), old)
        # Only the gradient of k1_advantage is meaningful, but its value is compared as well.
        assert update.loss == pytest.approx(plain.item(), rel=1e-4, abs=1e-5)
        for name, parameter in fresh.model.named_parameters():
            if parameter.grad is None:
                assert name not in expected or not expected[name].any()
            else:
                torch.testing.assert_close(parameter.grad, expected[name], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    "fields", [fields for fields in CASES if "distill" in fields and "reward_weight" not in fields]
)
def test_the_gradient_norm_of_each_term_is_that_of_the_plain_formula_for_any_micro_batch(
    fields: dict[str, object], fresh: Student, teacher: LanguageModel
) -> None:
    config = RLConfig.model_validate(fields | {"reward_weight": 0.5})
    ratio = 1.0 if config.updates_per_batch == 1 else 1.5
    batch = rollouts(fresh, offset=-math.log(1.5))
    states = Teacher(teacher, 30).score(batch.texts, [s.completion_ids for s in batch.sequences])
    old = None if config.updates_per_batch == 1 else batch.logprobs
    silent = config.distill.model_copy(update={"weight": 0.0})
    for name, alone in (
        ("policy", config.model_copy(update={"distill": silent})),
        ("distill", config.model_copy(update={"reward_weight": 0.0})),
    ):
        fresh.model.zero_grad(set_to_none=True)
        plain_loss(fresh, teacher, alone, ratio).backward()
        gradients = [p.grad.double() for p in fresh.model.parameters() if p.grad is not None]
        expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        fresh.model.zero_grad(set_to_none=True)
        for budget in (1, 40, 10_000):
            optimizer = Optimizer(fresh.model, config.optimizer, 3)
            objective = Objective(fresh, teacher, config, Execution(micro_batch_tokens=budget), optimizer)
            objective.accumulate(batch, states, term_weights(config, 0).terms()[name], old)
            assert optimizer.take_norm() == pytest.approx(expected, rel=1e-4)
            assert all(p.grad is None for p in fresh.model.parameters())


@pytest.mark.parametrize("estimator", ["k2", "reverse_kl"])
@pytest.mark.parametrize("reduce", ["token_mean", "sequence_mean"])
def test_rollouts_that_the_teacher_does_not_read_have_no_teacher_term_and_stay_in_its_denominator(
    estimator: str, reduce: str, fresh: Student, teacher: LanguageModel
) -> None:
    distill = {"weight": 0.5, "mask": "all", "estimator": estimator}
    config = RLConfig.model_validate({"distill": distill, "reduce": reduce})
    batch = rollouts(fresh)
    texts = [None if row in (0, 4) else text for row, text in enumerate(batch.texts)]
    states = Teacher(teacher, 30).score(texts, [s.completion_ids for s in batch.sequences])
    plain = plain_loss(fresh, teacher, config, 1.0, unread=(0, 4))
    plain.backward()
    expected = {name: p.grad.clone() for name, p in fresh.model.named_parameters() if p.grad is not None}
    for budget in (1, 10_000):
        fresh.model.zero_grad(set_to_none=True)
        objective = Objective(fresh, teacher, config, Execution(micro_batch_tokens=budget))
        update = objective.backward(replace(batch, texts=texts), states, term_weights(config, 0))
        assert update.loss == pytest.approx(plain.item(), rel=1e-4, abs=1e-5)
        for name, parameter in fresh.model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, expected[name], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("estimator", ["k2", "reverse_kl"])
@pytest.mark.parametrize("mask", ["wrong", "correct"])
def test_nothing_changes_if_the_teacher_reads_only_the_rollouts_that_get_its_term(
    mask: Mask, estimator: str, fresh: Student, teacher: LanguageModel
) -> None:
    config = RLConfig.model_validate({"distill": {"weight": 0.5, "mask": mask, "estimator": estimator}})
    entropies = torch.full((sum(map(len, COMPLETIONS)),), 9.0)
    # The last group has no signal for the policy term. Half of it gets no teacher term either.
    silent = replace(rollouts(fresh), advantages=torch.tensor([*ADVANTAGES[:3], 0.0, 0.0, 0.0]), entropies=entropies)
    updates, gradients = [], []
    for reads in ("all", mask):
        batch = replace(silent, teacher_reads=reads)
        states = Teacher(teacher, 30).score(batch.teacher_texts, [s.completion_ids for s in batch.sequences])
        fresh.model.zero_grad(set_to_none=True)
        objective = Objective(fresh, teacher, config, Execution(micro_batch_tokens=40))
        updates.append(objective.backward(batch, states, term_weights(config, 0)))
        gradients.append({n: p.grad.clone() for n, p in fresh.model.named_parameters() if p.grad is not None})
    whole, part = updates
    assert whole.trainer_mask.all() and not part.trainer_mask.all()
    assert part.loss == pytest.approx(whole.loss, rel=1e-5) and part.distill == pytest.approx(whole.distill, rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
    share = [1 - reward if mask == "wrong" else reward for reward in REWARDS]
    read = torch.tensor([s > 0 for s, c in zip(share, COMPLETIONS, strict=True) for _ in c])
    assert part.stats.kl is not None and whole.stats.kl is not None
    torch.testing.assert_close(part.stats.kl[read], whole.stats.kl[read], rtol=1e-4, atol=1e-5)
    unread = ~part.trainer_mask
    assert (part.stats.entropy[unread] == 9).all() and part.stats.logprobs[unread].equal(silent.logprobs[unread])


def test_token_statistics_come_back_in_the_order_of_the_rollouts(fresh: Student, teacher: LanguageModel) -> None:
    batch = rollouts(fresh)
    states = Teacher(teacher, 30).score(batch.texts, [s.completion_ids for s in batch.sequences])
    objective = Objective(fresh, teacher, RLConfig(), Execution(micro_batch_tokens=40))
    stats = objective.backward(batch, states, POLICY).stats
    torch.testing.assert_close(stats.logprobs, batch.logprobs, atol=1e-4, rtol=1e-4)
    assert stats.kl is not None and (stats.kl > 0).all()


def test_a_batch_of_equal_rewards_without_a_teacher_has_no_gradient(fresh: Student) -> None:
    batch = rollouts(fresh)
    flat = Rollouts(batch.texts, batch.sequences, batch.logprobs, torch.zeros(6), torch.zeros(6), 3, 0)
    Objective(fresh, None, RLConfig(), Execution()).backward(flat, None, POLICY)
    assert flat.zero_variance.all()
    assert not any(p.grad is not None and p.grad.any() for p in fresh.model.parameters())


def test_rollouts_without_signal_are_read_for_the_metrics_and_not_back_propagated(
    fresh: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = replace(rollouts(fresh), advantages=torch.tensor([*ADVANTAGES[:3], 0.0, 0.0, 0.0]))
    tokens = sum(map(len, COMPLETIONS))
    signal = [
        -advantage * plain_logprobs(fresh, fresh.encode_text("a"), completion)[1].sum() / tokens
        for completion, advantage in zip(COMPLETIONS[:3], ADVANTAGES, strict=False)
    ]
    torch.stack(signal).sum().backward()
    expected = {name: p.grad.clone() for name, p in fresh.model.named_parameters() if p.grad is not None}
    fresh.model.zero_grad(set_to_none=True)
    passes: list[tuple[bool, int]] = []
    hidden = objective_module.completion_hidden

    def spy(model: LanguageModel, part: list[TokenSequence]) -> torch.Tensor:
        passes.append((torch.is_grad_enabled(), len(part)))
        return hidden(model, part)

    monkeypatch.setattr(objective_module, "completion_hidden", spy)
    update = Objective(fresh, None, RLConfig(), Execution()).backward(batch, None, POLICY)
    assert sorted(passes) == [(False, 3), (True, 3)]
    torch.testing.assert_close(update.stats.logprobs, batch.logprobs, atol=1e-4, rtol=1e-4)
    for name, parameter in fresh.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("fields", [{}, {"updates_per_batch": 2}])
def test_rollouts_without_signal_are_not_read_if_the_engine_measured_their_entropy(
    fields: dict[str, object], fresh: Student, teacher: LanguageModel
) -> None:
    batch = replace(rollouts(fresh, offset=-0.5), advantages=torch.tensor([*ADVANTAGES[:3], 0.0, 0.0, 0.0]))
    objective = Objective(fresh, None, RLConfig.model_validate(fields), Execution(micro_batch_tokens=40))
    read = objective.backward(batch, None, POLICY)
    assert read.trainer_mask.all()
    expected = {name: p.grad.clone() for name, p in fresh.model.named_parameters() if p.grad is not None}
    fresh.model.zero_grad(set_to_none=True)
    marked = replace(batch, entropies=torch.full_like(batch.logprobs, 9.0))
    measured = objective.backward(marked, None, POLICY)
    for name, parameter in fresh.model.named_parameters():
        assert parameter.grad is None if name not in expected else parameter.grad.equal(expected[name]), name
    if fields:  # a second update needs the trainer's own probabilities from before the first
        assert measured.trainer_mask.all() and measured.stats.entropy.equal(read.stats.entropy)
        return
    first = sum(map(len, COMPLETIONS[:3]))
    assert measured.trainer_mask.tolist() == [True] * first + [False] * (len(measured.trainer_mask) - first)
    assert (measured.loss, measured.policy, measured.clipped.any()) == (read.loss, read.policy, read.clipped.any())
    assert (
        measured.stats.entropy[:first].equal(read.stats.entropy[:first]) and (measured.stats.entropy[first:] == 9).all()
    )
    assert measured.stats.logprobs[:first].equal(read.stats.logprobs[:first])
    assert measured.stats.logprobs[first:].equal(batch.logprobs[first:])
    states = Teacher(teacher, 30).score(batch.texts, [s.completion_ids for s in batch.sequences])
    assert Objective(fresh, teacher, RLConfig(), Execution()).backward(marked, states, POLICY).trainer_mask.all()


def test_config_refuses_an_objective_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing to optimise"):
        RLConfig(reward_weight=0.0, distill=DistillConfig(weight=0.0))
    with pytest.raises(ValueError, match="set max_refills to 0"):
        RLConfig(algorithm="dapo", reward_weight=0, distill=DistillConfig(weight=1))
