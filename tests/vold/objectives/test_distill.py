"""Estimators of the teacher term, by exact enumeration of a vocabulary of 20 in float64."""

import pytest
import torch

from vold.objectives.batch import TokenBatch
from vold.objectives.distill import Estimator, Mask, teacher_term

VOCABULARY = 20


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Student logits (with gradient) and the teacher's log-probabilities."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(VOCABULARY, dtype=torch.float64, generator=random)
    teacher = (2 * torch.randn(VOCABULARY, dtype=torch.float64, generator=random)).log_softmax(0)
    return logits.requires_grad_(), teacher


def every_token(logits: torch.Tensor, teacher: torch.Tensor, reward: float = 0.0) -> TokenBatch:
    """One position, once for each token that could have been drawn."""
    student = logits.log_softmax(0)
    kl = (student.exp() * (student - teacher)).sum().expand(VOCABULARY)
    ones = torch.ones(VOCABULARY, dtype=torch.float64)
    return TokenBatch(student, student.detach(), ones, reward * ones, teacher, kl.detach(), kl)


def expected_gradient(logits: torch.Tensor, per_token: torch.Tensor) -> torch.Tensor:
    """The gradient of each token's loss, weighted with the probability that the token is drawn."""
    probabilities = logits.detach().softmax(0)
    return torch.autograd.grad((probabilities * per_token).sum(), logits, retain_graph=True)[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("estimator", ["k2", "k1_advantage", "reverse_kl"])
def test_every_estimator_has_the_gradient_of_the_reverse_kl(estimator: Estimator, seed: int) -> None:
    logits, teacher = pair(seed)
    student = logits.log_softmax(0)
    reverse = torch.autograd.grad((student.exp() * (student - teacher)).sum(), logits)[0]
    forward = torch.autograd.grad((teacher.exp() * (teacher - logits.log_softmax(0))).sum(), logits)[0]
    ours = expected_gradient(logits, teacher_term(every_token(logits, teacher), estimator, "all"))
    torch.testing.assert_close(ours, reverse, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(ours, forward, atol=1e-2)


def test_k2_and_k1_advantage_agree_sample_by_sample() -> None:
    logits, teacher = pair(7)
    batch = every_token(logits, teacher)
    for token in range(VOCABULARY):
        one, two = (
            torch.autograd.grad(teacher_term(batch, name, "all")[token], logits, retain_graph=True)[0]
            for name in ("k2", "k1_advantage")
        )
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_k1_as_a_loss_has_no_gradient_and_is_refused() -> None:
    logits, teacher = pair(3)
    batch = every_token(logits, teacher)
    assert batch.teacher_logprobs is not None
    k1 = batch.logprobs - batch.teacher_logprobs
    torch.testing.assert_close(expected_gradient(logits, k1), torch.zeros_like(logits), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="k1 as a loss has no gradient"):
        teacher_term(batch, "k1", "all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "reward", "share"),
    [("wrong", 0.0, 1.0), ("wrong", 1.0, 0.0), ("correct", 0.0, 0.0), ("correct", 1.0, 1.0), ("all", 1.0, 1.0),
     ("wrong", 0.25, 0.75)],
)  # fmt: skip
def test_the_mask_weighs_by_reward(mask: Mask, reward: float, share: float) -> None:
    logits, teacher = pair(1)
    batch = every_token(logits, teacher, reward)
    unmasked = teacher_term(batch, "k2", "all").detach()
    torch.testing.assert_close(teacher_term(batch, "k2", mask).detach(), share * unmasked)


def test_a_term_without_its_teacher_is_refused() -> None:
    batch = TokenBatch(*(torch.zeros(3) for _ in range(4)))
    for estimator in ("k2", "k1_advantage", "reverse_kl"):
        with pytest.raises(ValueError, match="needs the"):
            teacher_term(batch, estimator, "all")
