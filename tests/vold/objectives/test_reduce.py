"""The reducer's denominators, against plain loops, and its indifference to how a batch is split."""

import pytest
import torch

from vold.objectives.reduce import Reduction, token_weights, weighted_sum

LENGTHS = torch.tensor([3, 1, 5, 2])


def test_token_mean_is_the_mean_over_all_tokens() -> None:
    values = torch.arange(11.0)
    assert weighted_sum(values, token_weights(LENGTHS, "token_mean")).item() == pytest.approx(5.0)


def test_sequence_mean_is_the_mean_of_row_means() -> None:
    values = torch.randn(11, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([row.mean() for row in values.split(LENGTHS.tolist())]).mean()
    assert weighted_sum(values, token_weights(LENGTHS, "sequence_mean")).item() == pytest.approx(expected.item())


def test_an_empty_completion_counts_as_a_sequence_and_adds_nothing() -> None:
    weights = token_weights(torch.tensor([2, 0]), "sequence_mean")
    assert weights.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("split", [[[0, 1, 2, 3]], [[3], [2], [1], [0]], [[2, 0], [1, 3]]])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(reduction: Reduction, split: list[list[int]]) -> None:
    parameter = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = token_weights(LENGTHS, reduction, limit=7)
    weighted_sum(parameter**2, weights).backward()
    whole = parameter.grad
    assert whole is not None
    parameter.grad = None
    spans = torch.arange(11).split(LENGTHS.tolist())
    for rows in split:
        index = torch.cat([spans[row] for row in rows])
        weighted_sum(parameter[index] ** 2, weights[index]).backward()
    torch.testing.assert_close(parameter.grad, whole)
