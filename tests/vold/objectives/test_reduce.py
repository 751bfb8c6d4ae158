"""The denominators against plain loops, and that gradients do not depend on how a batch is split."""

import pytest
import torch

from vold.config import Reduction
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import teacher_term
from vold.objectives.fused import Head, TokenStats, head_loss
from vold.objectives.grpo import policy_loss
from vold.objectives.reduce import token_weights

LENGTHS = torch.tensor([3, 1, 5, 2])


def test_token_mean_is_the_mean_over_all_tokens() -> None:
    values = torch.arange(11.0)
    assert float(values.double() @ token_weights(LENGTHS, "token_mean")) == pytest.approx(5.0)


def test_sequence_mean_is_the_mean_of_row_means() -> None:
    values = torch.randn(11, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([row.mean() for row in values.split(LENGTHS.tolist())]).mean()
    assert float(values.double() @ token_weights(LENGTHS, "sequence_mean")) == pytest.approx(expected.item())


def test_a_constant_denominator_counts_sequences_and_the_longest_allowed() -> None:
    assert token_weights(LENGTHS, "constant", limit=10).tolist() == pytest.approx([1 / 40] * 11)
    with pytest.raises(ValueError, match="longest completion allowed"):
        token_weights(LENGTHS, "constant")


def test_no_completions_and_only_empty_ones_have_no_tokens() -> None:
    for lengths in (torch.zeros(0, dtype=torch.long), torch.zeros(3, dtype=torch.long)):
        for reduction in ("token_mean", "sequence_mean", "constant"):
            assert len(token_weights(lengths, reduction, limit=5)) == 0


def test_an_empty_completion_counts_as_a_sequence_and_adds_nothing() -> None:
    weights = token_weights(torch.tensor([2, 0]), "sequence_mean")
    assert weights.tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("split", [[[0, 1, 2, 3]], [[3], [2], [1], [0]], [[2, 0], [1, 3]]])
def test_gradients_do_not_depend_on_the_split_into_micro_batches(reduction: Reduction, split: list[list[int]]) -> None:
    parameter = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights = token_weights(LENGTHS, reduction, limit=7)
    (parameter**2 @ weights).backward()
    whole = parameter.grad
    assert whole is not None
    parameter.grad = None
    spans = torch.arange(11).split(LENGTHS.tolist())
    for rows in split:
        index = torch.cat([spans[row] for row in rows])
        (parameter[index] ** 2 @ weights[index]).backward()
    torch.testing.assert_close(parameter.grad, whole)


class Case:
    """24 completions in float64, some of them empty, without advantage or masked for the teacher term."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(5)
        double = {"dtype": torch.float64, "generator": random}
        self.lengths = torch.randint(0, 9, (24,), generator=random)
        self.rewards = torch.randint(0, 2, (24,), generator=random).double()
        self.advantages = torch.randn(24, **double) * (torch.arange(24) % 3 > 0)
        tokens = int(self.lengths.sum())
        self.hidden = torch.randn(tokens, 6, **double, requires_grad=True)
        self.weight = torch.randn(40, 6, **double, requires_grad=True)
        self.teacher = torch.randn(tokens, 5, **double), Head(torch.randn(40, 5, **double))
        self.targets = torch.randint(0, 40, (tokens,), generator=random)
        self.old = -4 + torch.randn(tokens, **double)
        self.spans = torch.arange(tokens).split(self.lengths.tolist())

    def share(self, order: list[int], rows: list[int], reductions: tuple[Reduction, Reduction]) -> torch.Tensor:
        """The loss of the micro-batch ``rows``; ``order`` are the completions of all ranks, end to end."""
        policy_weights, teacher_weights = (token_weights(self.lengths[order], r, limit=9) for r in reductions)
        spans = dict(zip(order, torch.arange(len(policy_weights)).split(self.lengths[order].tolist()), strict=True))
        index, here = torch.cat([self.spans[row] for row in rows]), torch.cat([spans[row] for row in rows])
        owner = torch.tensor(rows).repeat_interleave(self.lengths[rows])

        def loss(stats: TokenStats, span: slice) -> torch.Tensor:
            batch = TokenBatch(
                stats.logprobs, self.old[index[span]], self.advantages[owner[span]], self.rewards[owner[span]],
                stats.teacher_logprobs, stats.kl,
            )  # fmt: skip
            policy, _ = policy_loss(batch, ratio="token", surrogate="clip", clip_low=0.2, clip_high=0.3)
            distill = teacher_term(batch, "k2", "wrong")
            return policy * policy_weights[here[span]] + 0.1 * distill * teacher_weights[here[span]]

        teacher = self.teacher[0][index], self.teacher[1]
        value, _ = head_loss(
            self.hidden[index], Head(self.weight), self.targets[index], loss, teacher=teacher, chunk_elements=200
        )
        return value

    def gradients(
        self, ranks: list[list[list[int]]], reductions: tuple[Reduction, Reduction]
    ) -> tuple[float, list[torch.Tensor]]:
        """Loss and gradients, summed over the micro-batches of all ``ranks``."""
        order = [row for batches in ranks for rows in batches for row in rows]
        shares = [self.share(order, rows, reductions) for batches in ranks for rows in batches]
        total = torch.stack(shares).sum()
        return total.item(), list(torch.autograd.grad(total, (self.hidden, self.weight)))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("policy", ["token_mean", "sequence_mean", "constant"])
@pytest.mark.parametrize("teacher", ["token_mean", "sequence_mean"])
def test_the_whole_objective_is_the_same_for_random_splits_over_micro_batches_and_ranks(
    policy: Reduction, teacher: Reduction, ranks: int
) -> None:
    case = Case()
    loss, whole = case.gradients([[list(range(24))]], (policy, teacher))
    assert all(gradient.any() for gradient in whole)
    for seed in range(3):
        order = torch.randperm(24, generator=torch.Generator().manual_seed(seed)).tolist()
        shares = [order[rank::ranks] for rank in range(ranks)]
        split = [[share[: seed + 2], share[seed + 2 :]] for share in shares]
        other, gradients = case.gradients(split, (policy, teacher))
        assert other == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(gradients, whole, rtol=1e-6, atol=1e-12)
