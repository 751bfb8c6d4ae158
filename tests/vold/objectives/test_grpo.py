"""Advantages and the clipped surrogate, by hand."""

import math

import pytest
import torch

from vold.objectives.batch import TokenBatch
from vold.objectives.grpo import group_advantages, policy_loss


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
