"""The fused head against a plain computation in float64, and its memory."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vold.config import Estimator
from vold.objectives import fused
from vold.objectives.distill import exact_divergence
from vold.objectives.divergence import reverse_kl, topk_reverse_kl
from vold.objectives.fused import BANNED, Head, TokenStats, head_loss, token_stats

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
    """hidden and weight (float64, with gradient), log-probs, entropy, teacher log-probs and KL without banned ids."""
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
    factor = torch.linspace(-1, 2, TOKENS)
    loss, stats = head_loss(
        mine_hidden,
        Head(mine_weight, case["bias"]),
        case["targets"],
        lambda stats, span: 2 * stats.logprobs * factor[span] + divergence_of(stats),
        temperature=temperature,
        teacher=(case["teacher_hidden"], Head(case["teacher_weight"], case["bias"])),
        divergence=reverse_kl,
        chunk_elements=chunk,
    )
    assert stats.kl is not None and stats.teacher_logprobs is not None
    for ours, theirs in zip((stats.logprobs, stats.entropy, stats.teacher_logprobs, stats.kl), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    plain_loss = (2 * expected[0] * factor).sum() + expected[3].sum()
    assert loss.item() == pytest.approx(plain_loss.item(), rel=1e-5)
    (0.5 * loss).backward()
    (0.5 * plain_loss).backward()
    for ours, theirs in ((mine_hidden.grad, hidden.grad), (mine_weight.grad, weight.grad)):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)


def divergence_of(stats: TokenStats) -> torch.Tensor:
    assert stats.divergence is not None
    return stats.divergence


def plain_divergence(name: str, student: torch.Tensor, teacher: torch.Tensor, k: int) -> torch.Tensor:
    """The divergence [T] of log-probabilities [T, V], straight from its definition."""
    p, q = student.exp(), teacher.exp()
    if name == "topk":
        top = teacher.topk(k, dim=-1).indices
        rest = torch.ones_like(p).scatter(1, top, 0.0)
        p, q = (torch.cat([m.gather(1, top), (m * rest).sum(1, keepdim=True)], dim=1) for m in (p, q))
        return torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
    half = ((p + q) / 2).log()
    to = torch.nn.functional.kl_div
    return {
        "reverse_kl": to(teacher, p, reduction="none").sum(-1),
        "forward_kl": to(student, q, reduction="none").sum(-1),
        "jsd": (to(half, p, reduction="none") + to(half, q, reduction="none")).sum(-1) / 2,
    }[name]


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl", "jsd", "topk"])
@pytest.mark.parametrize("chunk", [5 * VOCABULARY, 1 << 20])
def test_every_divergence_and_its_gradient_equal_the_definition_in_float64(
    name: Estimator, chunk: int, case: dict[str, torch.Tensor]
) -> None:
    double = {key: value.double() if value.is_floating_point() else value for key, value in case.items()}
    hidden, weight = double["hidden"].requires_grad_(), double["weight"].requires_grad_()
    teacher_logits = double["teacher_hidden"] @ double["teacher_weight"].T
    student = ((hidden @ weight.T) / 0.8).log_softmax(-1)
    expected = plain_divergence(name, student, teacher_logits.log_softmax(-1), k=7)
    gradients = torch.autograd.grad((expected * torch.arange(TOKENS)).sum(), (hidden, weight))
    loss, stats = head_loss(
        hidden,
        Head(weight),
        case["targets"],
        lambda stats, span: divergence_of(stats) * torch.arange(TOKENS)[span],
        temperature=0.8,
        teacher=(double["teacher_hidden"], Head(double["teacher_weight"])),
        divergence=exact_divergence(name, 7),
        chunk_elements=chunk,
    )
    torch.testing.assert_close(stats.divergence, expected.detach(), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), gradients, rtol=1e-8, atol=1e-10)


def test_top_k_over_the_whole_vocabulary_is_the_full_kl(case: dict[str, torch.Tensor]) -> None:
    logprobs = [torch.randn(TOKENS, VOCABULARY).log_softmax(-1) for _ in range(2)]
    value, slope = topk_reverse_kl(logprobs[0].clone(), logprobs[1].clone(), logprobs[0].exp(), VOCABULARY + 5)
    whole, whole_slope = reverse_kl(logprobs[0].clone(), logprobs[1].clone(), logprobs[0].exp())
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(slope, whole_slope)


def test_heads_of_different_widths_are_cut_to_their_common_rows(case: dict[str, torch.Tensor]) -> None:
    rows = VOCABULARY - 8
    targets, bias = case["targets"] % rows, torch.zeros(rows)
    weights = case["weight"].requires_grad_(), torch.cat([case["teacher_weight"], torch.ones(9, TEACHER_HIDDEN)])
    loss, _ = head_loss(
        case["hidden"],
        Head(weights[0], bias),
        targets,
        lambda stats, span: divergence_of(stats),
        teacher=(case["teacher_hidden"], Head(weights[1], bias)),
        divergence=reverse_kl,
    )
    student = (case["hidden"] @ weights[0][:rows].T).log_softmax(-1)
    teacher = (case["teacher_hidden"] @ weights[1][:rows].T).log_softmax(-1)
    expected = (student.exp() * (student - teacher)).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, weights[0])[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert not ours[rows:].any()
    with pytest.raises(ValueError, match="a bias of the same length"):
        token_stats(case["hidden"], Head(weights[0]), targets, teacher=(case["teacher_hidden"], Head(weights[1])))


def test_a_frozen_head_or_trunk_gets_no_gradient(case: dict[str, torch.Tensor]) -> None:
    for trunk, head in ((True, False), (False, True)):
        hidden, weight = case["hidden"].clone().requires_grad_(trunk), case["weight"].clone().requires_grad_(head)
        loss, _ = head_loss(hidden, Head(weight), case["targets"], lambda stats, span: stats.logprobs)
        loss.backward()
        assert (hidden.grad is not None, weight.grad is not None) == (trunk, head)


def test_bfloat16_products_with_a_softmax_in_float32(
    case: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_ROWS", 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, weight = case["hidden"].requires_grad_(), case["weight"].requires_grad_()
        loss, stats = head_loss(hidden, Head(weight), case["targets"], lambda stats, span: stats.logprobs)
    exact = (case["hidden"] @ case["weight"].T).log_softmax(-1).gather(1, case["targets"][:, None]).sum()
    assert stats.logprobs.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.01)
    for ours, theirs in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(exact, (hidden, weight)), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_a_teacher_that_is_nan_where_the_loss_ignores_it_changes_nothing(case: dict[str, torch.Tensor]) -> None:
    live = torch.arange(TOKENS) % 2
    broken = torch.where(live[:, None] == 1, case["teacher_hidden"], torch.nan)
    gradients = []
    for states in (case["teacher_hidden"], broken):
        hidden = case["hidden"].clone().requires_grad_()
        loss, _ = head_loss(
            hidden,
            Head(case["weight"]),
            case["targets"],
            lambda stats, span: stats.logprobs + torch.where(live[span] == 1, divergence_of(stats), 0.0),
            teacher=(states, Head(case["teacher_weight"])),
            divergence=reverse_kl,
        )
        gradients.append(torch.autograd.grad(loss, hidden)[0])
    assert gradients[0].isfinite().all()
    assert torch.equal(*gradients)


def test_the_loss_can_be_back_propagated_only_once(case: dict[str, torch.Tensor]) -> None:
    loss, _ = head_loss(
        case["hidden"].requires_grad_(), Head(case["weight"]), case["targets"], lambda stats, span: stats.logprobs
    )
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        loss.backward()


def test_a_student_equal_to_its_teacher_has_no_divergence(case: dict[str, torch.Tensor]) -> None:
    head = Head(case["weight"], case["bias"])
    stats = token_stats(case["hidden"], head, case["targets"], teacher=(case["hidden"], head))
    assert stats.kl is not None
    torch.testing.assert_close(stats.kl, torch.zeros(TOKENS), atol=1e-6, rtol=0)


def test_no_tokens_give_empty_statistics(case: dict[str, torch.Tensor]) -> None:
    assert len(token_stats(case["hidden"][:0], Head(case["weight"]), case["targets"][:0]).logprobs) == 0


@pytest.mark.parametrize("estimator", ["reverse_kl", "forward_kl", "jsd", "topk"])
def test_no_array_of_all_tokens_times_vocabulary_ever_exists(
    estimator: Estimator, case: dict[str, torch.Tensor]
) -> None:
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
        loss, _ = head_loss(
            hidden, Head(weight), case["targets"], lambda stats, span: stats.logprobs + divergence_of(stats),
            teacher=teacher, divergence=exact_divergence(estimator, 5), chunk_elements=4 * VOCABULARY,
        )  # fmt: skip
        loss.backward()
    assert largest.size <= max(weight.numel(), case["teacher_weight"].numel(), hidden.numel())
    assert largest.size < TOKENS * VOCABULARY
