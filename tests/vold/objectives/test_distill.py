"""Estimators of the teacher term by exact enumeration in float64, and their mask and special values."""

import math
from itertools import combinations
from pathlib import Path
from typing import get_args

import pytest
import torch

from perf.estimators import DISTANCES, TARGETS, TOLERANCE, LogitPair, exact_gradient, variance_table
from vold.config import DistillConfig, Estimator, Mask, RLConfig
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import FOLLOWS, SAMPLED, distill_term, placebo_term, teacher_term


def batch(rewards: list[float], *, teacher: list[float] | None = None) -> TokenBatch:
    """One token per rollout. By default the teacher is 0.5 nats below the student."""
    size = len(rewards)
    logprobs = torch.full((size,), -1.0, requires_grad=True)
    divergence = torch.full((size,), 0.3, requires_grad=True)
    scores = torch.tensor(teacher) if teacher else torch.full((size,), -1.5)
    kl = torch.full((size,), 0.3).masked_fill(~scores.isfinite(), torch.inf)
    return TokenBatch(
        logprobs, logprobs.detach(), torch.zeros(size), torch.tensor(rewards), scores, kl,
        torch.where(scores.isfinite(), divergence, torch.inf),
    )  # fmt: skip


def test_every_estimator_of_the_config_says_which_divergence_it_follows() -> None:
    assert set(get_args(Estimator)) == set(FOLLOWS)


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=list(DISTANCES))
@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_the_expected_gradient_is_that_of_the_named_divergence(estimator: Estimator, distance: float) -> None:
    for seed in range(5):
        assert exact_gradient(estimator, LogitPair.at_distance(distance, seed)).error < TOLERANCE


def test_the_divergences_differ_clearly() -> None:
    """The test above could not pass with another divergence as its target."""
    pair = LogitPair.at_distance(1.0, 0)
    targets = [exact_gradient(estimator, pair).target for estimator in ("k2", "k3_forward", "jsd", "topk")]
    for first, second in combinations(targets, 2):
        assert (first - second).norm() > 0.01 * second.norm()


def test_k2_and_k1_advantage_agree_sample_by_sample() -> None:
    gradients = []
    for estimator in ("k2", "k1_advantage"):
        tokens = batch([0.0, 0.0], teacher=[-0.2, -3.0])
        gradients.append(torch.autograd.grad(teacher_term(tokens, estimator, "all").sum(), tokens.logprobs)[0])
    torch.testing.assert_close(*gradients)


def test_the_exact_baseline_lowers_the_variance_and_exact_divergences_have_none() -> None:
    for distance in DISTANCES.values():
        pair = LogitPair.at_distance(distance, 3)
        noisy = exact_gradient("k1_advantage", pair).variance
        assert exact_gradient("k1_control", pair).variance < noisy
        for estimator in ("reverse_kl", "forward_kl", "jsd", "topk"):
            assert exact_gradient(estimator, pair).variance < 1e-12 * noisy


def test_the_documented_table_of_variances_is_the_program_output() -> None:
    assert variance_table() in (Path(__file__).parents[3] / "docs" / "objectives.md").read_text()


def test_k1_as_a_loss_has_no_gradient_and_is_refused() -> None:
    pair = LogitPair.at_distance(1.0, 1)
    logits = pair.student.requires_grad_()
    k1 = logits.log_softmax(0) - pair.teacher.log_softmax(0)
    expected = torch.autograd.grad((logits.detach().softmax(0) * k1).sum(), logits)[0]
    assert expected.abs().max() < 1e-12
    with pytest.raises(ValueError, match="k1 as a loss has no gradient"):
        teacher_term(batch([0.0]), "k1", "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected gradient of exactly zero: use k1_advantage, k2"):
        RLConfig.model_validate({"distill": {"weight": 0.1, "estimator": "k1"}})


@pytest.mark.parametrize("estimator", TARGETS)
@pytest.mark.parametrize(
    ("mask", "reward", "share"),
    [("wrong", 0.0, 1.0), ("wrong", 1.0, 0.0), ("correct", 0.0, 0.0), ("correct", 1.0, 1.0), ("all", 1.0, 1.0),
     ("wrong", 0.25, 0.75)],
)  # fmt: skip
def test_the_mask_weighs_by_reward(estimator: Estimator, mask: Mask, reward: float, share: float) -> None:
    unmasked = teacher_term(batch([reward]), estimator, "all").detach()
    torch.testing.assert_close(teacher_term(batch([reward]), estimator, mask).detach(), share * unmasked)


@pytest.mark.parametrize("estimator", TARGETS)
@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_teacher_value_that_is_not_finite_counts_only_where_the_mask_is_not_0(
    estimator: Estimator, value: float
) -> None:
    tokens = batch([1.0, 0.0], teacher=[value, -1.5])
    loss = teacher_term(tokens, estimator, "wrong").sum()
    (gradient,) = torch.autograd.grad(loss, tokens.logprobs, allow_unused=True)
    assert loss.isfinite()
    assert gradient is None or (gradient.isfinite().all() and gradient[0] == 0)
    assert not teacher_term(tokens, estimator, "all").sum().isfinite()


def test_a_correction_weighs_only_estimates_from_the_sampled_token() -> None:
    plain = batch([0.0, 0.0])
    weights = torch.tensor([0.5, 2.0])
    corrected = TokenBatch(**{name: getattr(plain, name) for name in plain.__slots__} | {"correction": weights})
    for estimator in TARGETS:
        expected = teacher_term(plain, estimator, "all") * (weights if estimator in SAMPLED else 1)
        torch.testing.assert_close(teacher_term(corrected, estimator, "all"), expected)


@pytest.mark.parametrize("probability", [0.01, 0.1, 1.0])
def test_the_placebo_lowers_the_probability_of_drawing_an_unlikely_token(probability: float) -> None:
    """Its expected gradient, summed over a vocabulary, is that of the mass of these tokens, whose set is fixed."""
    for seed in range(5):
        logits = LogitPair.at_distance(1.0, seed).student.requires_grad_()
        logprobs = logits.log_softmax(0)
        ones = torch.ones_like(logprobs)
        losses = placebo_term(TokenBatch(logprobs, logprobs.detach(), ones, ones), probability, "all")
        expected = torch.autograd.grad((logprobs.detach().exp() * losses).sum(), logits, retain_graph=True)[0]
        unlikely = logits.detach().softmax(0) < probability
        assert unlikely.any() and (probability == 1 or not unlikely.all())
        mass = torch.autograd.grad(logits.softmax(0)[unlikely].sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(expected, mass, rtol=1e-9, atol=1e-12)
        # Token by token it is the gradient of the log-probability, and nothing for a likely token.
        token = int(logits.argmin())
        single = torch.autograd.grad(losses[token], logits, retain_graph=True)[0]
        torch.testing.assert_close(single, torch.eye(len(logits)).double()[token] - logits.detach().softmax(0))
        if probability < 1:
            assert not torch.autograd.grad(losses[int(logits.argmax())], logits)[0].any()


def test_the_placebo_weighs_by_ratio_mask_and_correction_and_needs_no_teacher() -> None:
    old = torch.tensor([0.05, 0.05, 0.5, 0.05]).log()
    logprobs = (old + math.log(0.5)).requires_grad_()  # half as likely as before the first update
    rewards, weights = torch.tensor([0.0, 1.0, 0.0, 0.25]), torch.tensor([2.0, 2.0, 2.0, 1.0])
    tokens = TokenBatch(logprobs, old, torch.zeros(4), rewards, correction=weights)
    config = DistillConfig(weight=1, target="placebo", mask="wrong")
    losses = distill_term(tokens, config)
    torch.testing.assert_close(losses.detach(), torch.tensor([0.5 * 2, 0, 0, 0.5 * 0.75]))
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), logprobs)[0], losses.detach())
    assert config.active and not config.needs_teacher and config.uses_teacher
    assert not config.model_copy(update={"monitor_every": 0}).uses_teacher


def test_a_term_without_its_teacher_is_refused() -> None:
    silent = TokenBatch(*(torch.zeros(3) for _ in range(4)))
    for estimator in TARGETS:
        with pytest.raises(ValueError, match="needs the"):
            teacher_term(silent, estimator, "all")
