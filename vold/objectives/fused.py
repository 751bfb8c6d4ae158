"""The output head fused with the loss: log-probabilities, entropy, divergences and their gradients, chunk by chunk.

An array of tokens x vocabulary exists for one chunk alone. Because every loss here is a sum over tokens, its
derivative at a chunk's tokens is known as soon as their statistics are; the gradients of hidden states and head
are made at once from the logits at hand, and nothing is computed twice: per chunk one product for the logits, one
for each gradient, one for the teacher's logits. Memory beyond hidden states, weights and their gradients is a few
arrays of ``CHUNK_ELEMENTS``, whatever the number of tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from vold.objectives.divergence import Divergence, expectation, reverse_kl

CHUNK_ELEMENTS = 1 << 25
_ROWS = 1 << 14
# Finite, so that a banned id contributes 0 * finite = 0 to sums over the vocabulary, and not NaN.
BANNED = -1e30


@dataclass(frozen=True, slots=True)
class Head:
    """An output embedding [V, H] and a bias [R] (0, or ``BANNED`` where an id cannot be drawn).

    The distribution is over the first R <= V rows: models of one family pad their vocabularies differently.
    """

    weight: Tensor
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.weight.shape[0] if self.bias is None else len(self.bias)


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Per position [T]: log-probability of the target and entropy; with a teacher also its log-probability and
    the exact KL(student || teacher); ``divergence`` is the one asked for.

    Inside a loss, ``logprobs`` and ``divergence`` carry gradient; the others never do.
    """

    logprobs: Tensor
    entropy: Tensor
    teacher_logprobs: Tensor | None = None
    kl: Tensor | None = None
    divergence: Tensor | None = None

    @classmethod
    def cat(cls, parts: list["TokenStats"]) -> "TokenStats":
        """The statistics of several spans of tokens, end to end."""
        columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        cat: dict[str, Any] = {n: None if values[0] is None else torch.cat(values) for n, values in columns.items()}
        return cls(**cat)

    def at(self, index: Tensor) -> "TokenStats":
        """The statistics of the tokens at ``index``, without gradient."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {name: None if v is None else v.detach()[index] for name, v in columns.items()}
        return TokenStats(**taken)


TokenLoss = Callable[[TokenStats, slice], Tensor]
"""Statistics of a span of tokens, and the span: each token's share of the loss [n], a function of that token alone."""


@torch.no_grad()
def token_stats(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    teacher: tuple[Tensor, Head] | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenStats:
    """Statistics of ``targets`` [T] under softmax(head(hidden) / temperature), hidden [T, H]; without gradient.

    ``teacher`` is the teacher's hidden states [T, H'] and head, read at temperature 1; both heads must have the
    same number of rows.
    """
    view = _View.of(hidden, head, targets, temperature, teacher)
    return TokenStats.cat([view.read(span, None)[0] for span in _spans(len(targets), head.rows, chunk_elements)])


def head_loss(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    loss: TokenLoss,
    *,
    temperature: float = 1.0,
    teacher: tuple[Tensor, Head] | None = None,
    divergence: Divergence | None = None,
    kl: bool = True,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[Tensor, TokenStats]:
    """The sum of ``loss`` over all tokens, differentiable once by ``hidden`` and ``head.weight``; their statistics.

    Arguments as in ``token_stats``; ``divergence`` is computed where it is part of the loss, and the exact KL beside
    it to be looked at, unless ``kl`` is False.
    """
    learns = torch.is_grad_enabled()
    with torch.no_grad():
        view = _View.of(hidden, head, targets, temperature, teacher, kl)
        gradients = _Gradients.of(hidden, head) if learns else _Gradients(None, None)
        parts = [
            _learn(view, span, loss, divergence, gradients) for span in _spans(len(targets), head.rows, chunk_elements)
        ]
        value = torch.stack([share for share, _ in parts]).sum()
    return _Attach.apply(value, hidden, head.weight, gradients), TokenStats.cat([stats for _, stats in parts])


def _spans(tokens: int, rows: int, chunk_elements: int) -> list[slice]:
    """Chunks of about equal size: a short last one would cost a pass over the head's gradient like any other."""
    chunks = max(1, math.ceil(tokens / max(1, chunk_elements // rows)))
    bounds = [tokens * index // chunks for index in range(chunks + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class _View:
    """Everything that the statistics of a chunk are computed from, in the type that products are computed in."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    temperature: float
    teacher: "_View | None" = None
    kl: bool = True

    @classmethod
    def of(
        cls,
        hidden: Tensor,
        head: Head,
        targets: Tensor,
        temperature: float,
        teacher: tuple[Tensor, Head] | None,
        kl: bool = True,
    ) -> "_View":
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        beside = None if teacher is None else cls.of(*teacher, targets, 1.0, None)
        if beside is not None and len(beside.weight) != head.rows:
            raise ValueError(
                f"the student's head has {head.rows} rows and the teacher's {len(beside.weight)}: cut both"
            )
        return cls(hidden.to(dtype), head.weight[: head.rows].to(dtype), head.bias, targets, temperature, beside, kl)

    def read(self, span: slice, divergence: Divergence | None) -> tuple[TokenStats, Tensor, Tensor | None]:
        """Statistics of ``span``, the student's probabilities [n, R], and the slope of ``divergence`` [n, R]."""
        # Three arrays [n, R] at a time, a fourth where the KL is looked at beside another divergence.
        student, chosen = self._log_softmax(span)
        teacher, teacher_chosen = (None, None) if self.teacher is None else self.teacher._log_softmax(span)
        p = student.exp()
        entropy = expectation(p, student).neg_()
        if teacher is None:
            return TokenStats(chosen, entropy), p, None
        if divergence is None:
            kl = expectation(p, student.sub_(teacher)) if self.kl else None
            return TokenStats(chosen, entropy, teacher_chosen, kl), p, None
        kl = expectation(p, student - teacher) if self.kl and divergence is not reverse_kl else None
        value, slope = divergence(student, teacher, p)
        return TokenStats(chosen, entropy, teacher_chosen, value if divergence is reverse_kl else kl, value), p, slope

    def _log_softmax(self, span: slice) -> tuple[Tensor, Tensor]:
        """[n, R] in float32 or better, and its values at the targets [n]."""
        with torch.autocast(self.hidden.device.type, enabled=False):
            logits = torch.mm(self.hidden[span], self.weight.T)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature != 1:
            logits.div_(self.temperature)
        if self.bias is not None:
            logits.add_(self.bias)
        logprobs = logits.log_softmax(dim=-1)
        return logprobs, logprobs.gather(1, self.targets[span, None])[:, 0]


@dataclass(slots=True)
class _Gradients:
    """Gradients of hidden states [T, H] and head [V, H], made in the forward pass; None where none is wanted."""

    hidden: Tensor | None
    weight: Tensor | None
    spent: bool = False

    @classmethod
    def of(cls, hidden: Tensor, head: Head) -> "_Gradients":
        wanted = hidden.requires_grad, head.weight.requires_grad
        return cls(
            torch.zeros_like(hidden) if wanted[0] else None,
            # Chunks are summed: not in bfloat16.
            torch.zeros_like(head.weight, dtype=torch.promote_types(head.weight.dtype, torch.float32))
            if wanted[1]
            else None,
        )

    def add(self, view: _View, span: slice, by_logits: Tensor) -> None:
        """What ``span`` contributes, from the derivative by its logits [n, R]."""
        by_logits = by_logits.to(view.hidden.dtype)
        with torch.autocast(view.hidden.device.type, enabled=False):
            if self.hidden is not None:
                self.hidden[span] = torch.mm(by_logits, view.weight)
            if self.weight is not None:
                rows = self.weight[: len(view.weight)]
                if rows.dtype == by_logits.dtype:
                    rows.addmm_(by_logits.T, view.hidden[span])
                    return
                # Products in half precision are added up in float32, some rows at a time.
                for block, part in zip(rows.split(_ROWS), by_logits.T.split(_ROWS), strict=True):
                    block.add_(torch.mm(part, view.hidden[span]))


def _learn(
    view: _View, span: slice, loss: TokenLoss, divergence: Divergence | None, gradients: _Gradients
) -> tuple[Tensor, TokenStats]:
    """One chunk: its statistics, its share of the loss, and what it adds to the gradients."""
    stats, p, slope = view.read(span, divergence)
    share, by_logprob, by_divergence = _derivatives(loss, stats, span)
    # A chunk without any influence costs no products (rollouts without advantage, masked from the teacher term).
    if (gradients.hidden is not None or gradients.weight is not None) and (by_logprob.any() or by_divergence.any()):
        by_logits = p.mul_(-by_logprob[:, None])
        by_logits.scatter_add_(1, view.targets[span, None], by_logprob[:, None])
        if slope is not None:
            # A token outside the divergence takes nothing from it, not even a NaN.
            slope.masked_fill_((by_divergence == 0)[:, None], 0.0)
            by_logits.addcmul_(slope, by_divergence[:, None])
        gradients.add(view, span, by_logits if view.temperature == 1 else by_logits.div_(view.temperature))
    return share, stats


def _derivatives(loss: TokenLoss, stats: TokenStats, span: slice) -> tuple[Tensor, Tensor, Tensor]:
    """A chunk's share of the loss, and its derivative by each log-probability and each divergence [n]."""
    logprobs = stats.logprobs.detach().requires_grad_()
    divergence = None if stats.divergence is None else stats.divergence.detach().requires_grad_()
    with torch.enable_grad():
        share = loss(replace(stats, logprobs=logprobs, divergence=divergence), span).sum()
    zero = torch.zeros_like(stats.logprobs)
    if not share.requires_grad:
        return share, zero, zero
    inputs = [logprobs] if divergence is None else [logprobs, divergence]
    found = torch.autograd.grad(share, inputs, allow_unused=True)
    given = [zero if gradient is None else gradient for gradient in found]
    return share.detach(), given[0], given[-1] if divergence is not None else zero


class _Attach(torch.autograd.Function):
    """Hangs gradients that are already known under a value."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, hidden: Tensor, weight: Tensor, gradients: _Gradients) -> Tensor:
        ctx.gradients, ctx.dtype = gradients, weight.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        kept: _Gradients = ctx.gradients
        if kept.spent:
            raise RuntimeError("a head's loss can be back-propagated once")
        kept.spent = True
        hidden = None if kept.hidden is None else kept.hidden.mul_(outputs[0])
        weight = None if kept.weight is None else kept.weight.mul_(outputs[0]).to(ctx.dtype)
        return None, hidden, weight, None
