"""The fused head against a plain computation in float64, and its memory."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vold.objectives.fused import BANNED, Head, token_stats

TOKENS, VOCABULARY, HIDDEN, TEACHER_HIDDEN = 37, 50, 16, 24


@pytest.fixture
def case() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    bias = torch.zeros(VOCABULARY)
    bias[[3, 49]] = BANNED
    targets = torch.randint(4, 49, (TOKENS,), generator=random)
    return {
        "hidden": torch.randn(TOKENS, HIDDEN, generator=random),
        "weight": torch.randn(VOCABULARY, HIDDEN, generator=random),
        "teacher_hidden": torch.randn(TOKENS, TEACHER_HIDDEN, generator=random),
        "teacher_weight": torch.randn(VOCABULARY, TEACHER_HIDDEN, generator=random) / 3,
        "bias": bias,
        "targets": targets,
    }


def plain(case: dict[str, torch.Tensor], temperature: float) -> tuple[torch.Tensor, ...]:
    """hidden, weight (float64, with gradient), log-probs, entropy, teacher log-probs, KL over the ids not banned."""
    hidden, weight = (case[name].double().requires_grad_() for name in ("hidden", "weight"))
    allowed = case["bias"] == 0
    compressed = (allowed.cumsum(0) - 1)[case["targets"]]
    student = ((hidden @ weight.T)[:, allowed] / temperature).log_softmax(-1)
    teacher = (case["teacher_hidden"].double() @ case["teacher_weight"].double().T)[:, allowed].log_softmax(-1)
    rows = torch.arange(TOKENS)
    entropy = -(student.exp() * student).sum(-1)
    kl = (student.exp() * (student - teacher)).sum(-1)
    return hidden, weight, student[rows, compressed], entropy, teacher[rows, compressed], kl


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [VOCABULARY, 5 * VOCABULARY, 1 << 20])
def test_values_and_gradients_equal_the_plain_computation(
    case: dict[str, torch.Tensor], temperature: float, chunk: int
) -> None:
    hidden, weight, *expected = plain(case, temperature)
    mine_hidden, mine_weight = case["hidden"].requires_grad_(), case["weight"].requires_grad_()
    stats = token_stats(
        mine_hidden,
        Head(mine_weight, case["bias"]),
        case["targets"],
        temperature=temperature,
        teacher=(case["teacher_hidden"], Head(case["teacher_weight"], case["bias"])),
        kl_gradient=True,
        chunk_elements=chunk,
    )
    assert stats.kl is not None and stats.teacher_logprobs is not None
    for ours, theirs in zip((stats.logprobs, stats.entropy, stats.teacher_logprobs, stats.kl), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    (2 * stats.logprobs.sum() + stats.kl.sum()).backward()
    (2 * expected[0].sum() + expected[3].sum()).backward()
    for ours, theirs in ((mine_hidden.grad, hidden.grad), (mine_weight.grad, weight.grad)):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)


def test_the_kl_carries_no_gradient_unless_it_is_the_objective(case: dict[str, torch.Tensor]) -> None:
    teacher = (case["teacher_hidden"], Head(case["teacher_weight"]))
    stats = token_stats(case["hidden"].requires_grad_(), Head(case["weight"]), case["targets"], teacher=teacher)
    assert stats.kl is not None and not stats.kl.requires_grad
    assert stats.logprobs.requires_grad


def test_a_student_equal_to_its_teacher_has_no_divergence(case: dict[str, torch.Tensor]) -> None:
    head = Head(case["weight"], case["bias"])
    stats = token_stats(case["hidden"], head, case["targets"], teacher=(case["hidden"], head))
    assert stats.kl is not None
    torch.testing.assert_close(stats.kl, torch.zeros(TOKENS), atol=1e-6, rtol=0)


def test_no_tokens_give_empty_statistics(case: dict[str, torch.Tensor]) -> None:
    assert len(token_stats(case["hidden"][:0], Head(case["weight"]), case["targets"][:0]).logprobs) == 0


def test_no_array_of_all_tokens_times_vocabulary_ever_exists(case: dict[str, torch.Tensor]) -> None:
    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    hidden, weight = case["hidden"].requires_grad_(), case["weight"].requires_grad_()
    teacher = (case["teacher_hidden"], Head(case["teacher_weight"]))
    with Largest() as largest:
        stats = token_stats(
            hidden, Head(weight), case["targets"], teacher=teacher, kl_gradient=True, chunk_elements=4 * VOCABULARY
        )
        assert stats.kl is not None
        (stats.logprobs + stats.kl).sum().backward()
    assert largest.size <= max(weight.numel(), case["teacher_weight"].numel(), hidden.numel())
    assert largest.size < TOKENS * VOCABULARY
