"""The output head fused with the loss, chunk by chunk: log-probabilities, entropy, divergences and gradients.

An array of tokens x vocabulary exists for only one chunk at a time. Every loss here is a sum over tokens, so its
derivative at a chunk's tokens is known as soon as their statistics are. The gradients of hidden states and head are
therefore computed in the forward pass, while the chunk's logits exist, and nothing is computed twice. Each chunk takes
one matrix product for the logits, one for each gradient and one for the teacher's logits. In addition to hidden states,
weights and their gradients, memory holds a few arrays of ``CHUNK_ELEMENTS`` for any number of tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from vold.objectives.divergence import Divergence, expectation, reverse_kl

CHUNK_ELEMENTS = 1 << 25
"""Most elements (tokens x vocabulary) of one chunk."""
_ROWS = 1 << 14
# Finite, so that a banned id contributes 0 * finite = 0 to sums over the vocabulary, and not NaN.
BANNED = -1e30
"""Bias of an id that cannot be drawn."""


@dataclass(frozen=True, slots=True)
class Head:
    """An output embedding ``weight`` [V, H] and a ``bias`` [R], which is 0 or ``BANNED``.

    The distribution is over the first R <= V rows, because models of one family pad their vocabularies differently.
    """

    weight: Tensor
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        return self.weight.shape[0] if self.bias is None else len(self.bias)


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Statistics of the student at T positions, each an array [T]. Some need a teacher.

    Inside a loss, ``logprobs`` and ``divergence`` carry gradient. The others never do.

    logprobs: log-probability of the target.
    entropy: entropy in nats.
    teacher_logprobs: the teacher's log-probability of the target.
    kl: the exact KL(student || teacher).
    divergence: the divergence that the caller asked for.
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
        joined: dict[str, Any] = {n: None if values[0] is None else torch.cat(values) for n, values in columns.items()}
        return cls(**joined)

    def at(self, index: Tensor) -> "TokenStats":
        """The statistics of the tokens at ``index``, without gradient."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        taken: dict[str, Any] = {name: None if v is None else v.detach()[index] for name, v in columns.items()}
        return TokenStats(**taken)


TokenLoss = Callable[[TokenStats, slice], Tensor]
"""Each token's share of the loss [n], from the statistics of a span of n tokens and the span itself.

The share of a token must depend on that token alone.
"""


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
    """Statistics of ``targets`` [T] under softmax(head(hidden) / temperature), without gradient.

    hidden: the student's hidden states [T, H].
    teacher: the teacher's hidden states [T, H'] and head, at temperature 1. Both heads must have the same number of
    rows; otherwise this raises ValueError.
    chunk_elements: most elements (tokens x vocabulary) of one chunk.
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
    """The sum of ``loss`` over all tokens, and the tokens' statistics.

    The sum can be differentiated once, with respect to ``hidden`` and ``head.weight``. Arguments are as in
    ``token_stats``, and:

    divergence: the divergence that the loss uses, if any.
    kl: whether to compute the exact KL(student || teacher) too, for monitoring.
    """
    needs_gradients = torch.is_grad_enabled()
    with torch.no_grad():
        view = _View.of(hidden, head, targets, temperature, teacher, kl)
        gradients = _Gradients.of(hidden, head) if needs_gradients else _Gradients(None, None)
        parts = [
            _learn(view, span, loss, divergence, gradients) for span in _spans(len(targets), head.rows, chunk_elements)
        ]
        value = torch.stack([share for share, _ in parts]).sum()
    total = _Attach.apply(value, hidden, head.weight, gradients)  # pyright: ignore  (torch leaves apply untyped)
    return cast(Tensor, total), TokenStats.cat([stats for _, stats in parts])


def _spans(tokens: int, rows: int, chunk_elements: int) -> list[slice]:
    """Chunks of about equal size.

    A short last chunk would cost as much as any other, because each one passes over the head's whole gradient.
    """
    chunks = max(1, math.ceil(tokens / max(1, chunk_elements // rows)))
    bounds = [tokens * index // chunks for index in range(chunks + 1)]
    return [slice(start, end) for start, end in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class _View:
    """One model's hidden states [T, H] and head [R, H], in the dtype of the matrix products, and its teacher's."""

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
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        other = None if teacher is None else cls.of(*teacher, targets, 1.0, None)
        if other is not None and len(other.weight) != head.rows:
            raise ValueError(
                f"the student's head has {head.rows} rows and the teacher's {len(other.weight)}: "
                "give both heads a bias of the same length"
            )
        return cls(hidden.to(dtype), head.weight[: head.rows].to(dtype), head.bias, targets, temperature, other, kl)

    def read(self, span: slice, divergence: Divergence | None) -> tuple[TokenStats, Tensor, Tensor | None]:
        """Statistics of ``span``, the student's probabilities [n, R], and the slope of ``divergence`` [n, R]."""
        # There are three arrays [n, R] at a time, and a fourth if the KL is monitored next to another divergence.
        student, logprobs = self.log_softmax(span)
        teacher, teacher_logprobs = (None, None) if self.teacher is None else self.teacher.log_softmax(span)
        p = student.exp()
        entropy = expectation(p, student).neg_()
        if teacher is None:
            return TokenStats(logprobs, entropy), p, None
        if divergence is None:
            kl = expectation(p, student.sub_(teacher)) if self.kl else None
            return TokenStats(logprobs, entropy, teacher_logprobs, kl), p, None
        kl = expectation(p, student - teacher) if self.kl and divergence is not reverse_kl else None
        value, slope = divergence(student, teacher, p)
        kl = value if divergence is reverse_kl else kl
        return TokenStats(logprobs, entropy, teacher_logprobs, kl, value), p, slope

    def log_softmax(self, span: slice) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, R] of ``span``, float32 or better, and those of the targets [n]."""
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
    """Gradients of hidden states [T, H] and head [V, H], computed in the forward pass; None if not needed."""

    hidden: Tensor | None
    weight: Tensor | None
    spent: bool = False

    @classmethod
    def of(cls, hidden: Tensor, head: Head) -> "_Gradients":
        # The head's gradient is a sum over chunks, which bfloat16 would round too much.
        dtype = torch.promote_types(head.weight.dtype, torch.float32)
        return cls(
            torch.zeros_like(hidden) if hidden.requires_grad else None,
            torch.zeros_like(head.weight, dtype=dtype) if head.weight.requires_grad else None,
        )

    def add(self, view: _View, span: slice, by_logits: Tensor) -> None:
        """Add the contribution of ``span``, from the derivative with respect to its logits [n, R]."""
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
                blocks = zip(torch.split(rows, _ROWS), torch.split(by_logits.T, _ROWS), strict=True)
                for block, part in blocks:
                    block.add_(torch.mm(part, view.hidden[span]))


def _learn(
    view: _View, span: slice, loss: TokenLoss, divergence: Divergence | None, gradients: _Gradients
) -> tuple[Tensor, TokenStats]:
    """Add one chunk's contribution to ``gradients``; return its share of the loss and its statistics."""
    stats, p, slope = view.read(span, divergence)
    share, by_logprob, by_divergence = _derivatives(loss, stats, span)
    # A chunk that does not affect the loss costs no products: rollouts without advantage, masked for the teacher term.
    if (gradients.hidden is not None or gradients.weight is not None) and (by_logprob.any() or by_divergence.any()):
        by_logits = p.mul_(-by_logprob[:, None])
        by_logits.scatter_add_(1, view.targets[span, None], by_logprob[:, None])
        if slope is not None:
            # A token for which the divergence does not count must not get its NaN either.
            slope.masked_fill_((by_divergence == 0)[:, None], 0.0)
            by_logits.addcmul_(slope, by_divergence[:, None])
        gradients.add(view, span, by_logits if view.temperature == 1 else by_logits.div_(view.temperature))
    return share, stats


def _derivatives(loss: TokenLoss, stats: TokenStats, span: slice) -> tuple[Tensor, Tensor, Tensor]:
    """A chunk's share of the loss, and its derivatives with respect to log-probabilities [n] and divergences [n]."""
    logprobs = stats.logprobs.detach().requires_grad_()
    divergence = None if stats.divergence is None else stats.divergence.detach().requires_grad_()
    with torch.enable_grad():
        share = loss(replace(stats, logprobs=logprobs, divergence=divergence), span).sum()
    zero = torch.zeros_like(stats.logprobs)
    if not share.requires_grad:
        return share, zero, zero
    inputs = [logprobs] if divergence is None else [logprobs, divergence]
    gradients = torch.autograd.grad(share, inputs, materialize_grads=True)
    return share.detach(), gradients[0], zero if divergence is None else gradients[1]


class _Attach(torch.autograd.Function):
    """Gives a value gradients that are already computed."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, hidden: Tensor, weight: Tensor, gradients: _Gradients) -> Tensor:
        ctx.gradients, ctx.dtype = gradients, weight.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients: _Gradients = ctx.gradients
        if gradients.spent:
            raise RuntimeError("the loss of head_loss can be back-propagated only once; call head_loss again")
        gradients.spent = True
        hidden = None if gradients.hidden is None else gradients.hidden.mul_(outputs[0])
        weight = None if gradients.weight is None else gradients.weight.mul_(outputs[0]).to(ctx.dtype)
        return None, hidden, weight, None
