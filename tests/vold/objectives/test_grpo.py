"""Advantages and policy losses against values computed by hand."""

import math

import pytest
import torch

from vold.config import RLConfig
from vold.objectives.batch import TokenBatch
from vold.objectives.grpo import group_advantages, per_sequence, policy_loss, truncated_importance


def tokens(logprobs: torch.Tensor, old: torch.Tensor, advantages: list[float]) -> TokenBatch:
    return TokenBatch(logprobs, old, torch.tensor(advantages), torch.zeros(len(advantages)))


def clip(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return policy_loss(batch, ratio="token", surrogate="clip", clip_low=0.2, clip_high=0.3)


def test_advantages_are_standardised_within_the_group_with_delta() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    first, second = group_advantages(rewards, 0.1).tolist()
    assert first == pytest.approx([0.5 / 0.6, -0.5 / 0.6, -0.5 / 0.6, 0.5 / 0.6])
    deviation = math.sqrt(0.25 * 0.75)
    assert second == pytest.approx([0.75 / (deviation + 0.1)] + [-0.25 / (deviation + 0.1)] * 3)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3])
def test_an_all_equal_group_gives_exactly_zero(value: float) -> None:
    assert group_advantages(torch.full((2, 7), value), 1e-12).tolist() == [[0.0] * 7] * 2


def test_a_group_of_one_gives_zero_and_not_nan() -> None:
    assert group_advantages(torch.tensor([[1.0]]), 1e-4).item() == 0.0


def test_on_policy_gradient_is_that_of_reinforce() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    loss, clipped = clip(tokens(logprobs, logprobs.detach(), [1.5, -2.0, 0.0]))
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.5, 2.0, 0.0])
    assert not clipped.any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (1.25, 1.0, -1.25, False),
        (1.5, 1.0, -1.3, True),
        (1.5, -1.0, 1.5, False),
        (0.7, -1.0, 0.8, True),
        (0.7, 1.0, -0.7, False),
        (0.9, -2.0, 1.8, False),
    ],
)
def test_the_clip_is_asymmetric_and_bounds_only_gains(
    ratio: float, advantage: float, loss: float, is_clipped: bool
) -> None:
    logprobs = torch.tensor([math.log(ratio)], requires_grad=True)
    value, clipped = clip(tokens(logprobs, torch.zeros(1), [advantage]))
    value.sum().backward()
    assert value.item() == pytest.approx(loss)
    assert clipped.item() is is_clipped
    assert logprobs.grad is not None
    assert (logprobs.grad.item() == 0.0) is is_clipped


def test_without_standardisation_advantages_are_distances_from_the_mean() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    expected = [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    assert group_advantages(rewards, 1e-4, "group_mean").tolist() == expected


def test_a_reward_that_is_not_finite_makes_only_its_own_group_nan() -> None:
    advantages = group_advantages(torch.tensor([[math.inf, 0.0], [math.inf, math.inf], [1.0, 0.0]]), 1e-4)
    assert advantages[:2].isnan().all() and advantages[2].isfinite().all()


def test_per_sequence_values_are_repeated_at_every_token() -> None:
    lengths = torch.tensor([2, 0, 3])
    values = torch.tensor([1.0, 3.0, 0.0, 6.0, 3.0])
    assert per_sequence(values, lengths, "sum").tolist() == [4.0, 4.0, 9.0, 9.0, 9.0]
    assert per_sequence(values, lengths, "mean").tolist() == [2.0, 2.0, 3.0, 3.0, 3.0]


def test_the_ratio_of_sequences_has_the_gradient_of_the_geometric_mean() -> None:
    lengths = torch.tensor([3, 2])
    old = torch.randn(5, dtype=torch.float64) / 10
    logprobs = (old + torch.tensor([0.1, -0.3, 0.05, 0.4, 0.2], dtype=torch.float64)).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    weights = 1 / (2 * lengths.double()).repeat_interleave(lengths)
    mean = per_sequence((logprobs - old).detach(), lengths, "mean")
    batch = TokenBatch(logprobs, old, advantages, torch.zeros(5), sequence_log_ratio=mean)
    for low, high in ((1.0, 9.0), (0.02, 0.02)):
        ours, binds = policy_loss(batch, ratio="sequence", surrogate="clip", clip_low=low, clip_high=high)
        plain = torch.zeros((), dtype=torch.float64)
        for span, advantage in ((slice(0, 3), 1.0), (slice(3, 5), 2.0)):
            ratio = (logprobs[span] - old[span]).mean().exp()
            plain = plain - torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage) / 2
        assert (ours * weights).sum().item() == pytest.approx(plain.item())
        gradients = [
            torch.autograd.grad(loss, logprobs, retain_graph=True)[0] for loss in ((ours * weights).sum(), plain)
        ]
        torch.testing.assert_close(*gradients)
    assert binds.tolist() == [False] * 3 + [True] * 2
    with pytest.raises(ValueError, match="mean log-ratio of every rollout"):
        policy_loss(tokens(logprobs, old, [0.0] * 5), ratio="sequence", surrogate="clip", clip_low=1, clip_high=1)


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    ratios = torch.tensor([0.1, 1.0, 9.0])
    logprobs = ratios.log().requires_grad_()
    batch = tokens(logprobs, torch.zeros(3), [1.0, 1.0, -1.0])
    loss, binds = policy_loss(batch, ratio="token", surrogate="cispo", clip_low=1.0, clip_high=4.0)
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert gradient.tolist() == pytest.approx([-0.1, -1.0, 5.0])
    assert binds.tolist() == [False, False, True]


def test_importance_weights_are_capped_and_weigh_the_loss() -> None:
    log_ratio = torch.tensor([math.log(0.5), math.log(1.5), math.log(10.0)])
    weights = truncated_importance(log_ratio, 2.0)
    assert weights.tolist() == pytest.approx([0.5, 1.5, 2.0])
    logprobs = torch.zeros(3, requires_grad=True)
    batch = TokenBatch(logprobs, torch.zeros(3), torch.ones(3), torch.zeros(3), correction=weights)
    clip(batch)[0].sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.5, -1.5, -2.0])


def test_an_algorithm_fills_only_the_settings_that_are_not_given() -> None:
    default = RLConfig()
    assert (default.advantage, default.ratio, default.surrogate, default.reduce) == (
        "group_std", "token", "clip", "token_mean",
    )  # fmt: skip
    assert (default.clip_low, default.clip_high, default.max_refills) == (0.2, 0.3, 0)
    gspo = RLConfig.model_validate({"algorithm": "gspo", "clip_high": 0.1})
    assert (gspo.ratio, gspo.reduce, gspo.clip_low, gspo.clip_high) == ("sequence", "sequence_mean", 3e-4, 0.1)
    dr_grpo = RLConfig(algorithm="dr_grpo")
    assert (dr_grpo.advantage, dr_grpo.reduce) == ("group_mean", "constant")
    assert RLConfig(algorithm="dapo").max_refills > 0 and RLConfig(algorithm="cispo").surrogate == "cispo"
    assert RLConfig.model_validate(gspo.model_dump()) == gspo
    with pytest.raises(ValueError, match=r"algorithm\n.*'dapo', 'gspo' or 'cispo'"):
        RLConfig.model_validate({"algorithm": "ppo"})
