"""The output head, fused with what is wanted of it: log-probability, entropy and exact KL of each position.

Logits exist for one chunk of tokens at a time; a chunk's are computed again in the backward pass. So memory
beyond hidden states and weights is bounded by a few arrays of ``CHUNK_ELEMENTS``, whatever the number of tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 1 << 24
# Finite, so that a banned id contributes 0 * finite = 0 to sums over the vocabulary, and not NaN.
BANNED = -1e30


@dataclass(frozen=True, slots=True)
class Head:
    """An output embedding [V, H] and a bias [V] (0, or ``BANNED`` where an id cannot be drawn)."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Per position [T]: log-probability of the target and entropy; with a teacher also its log-probability and
    the exact KL(student || teacher). ``entropy`` carries no gradient; ``kl`` does where asked for."""

    logprobs: Tensor
    entropy: Tensor
    teacher_logprobs: Tensor | None = None
    kl: Tensor | None = None


def token_stats(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    teacher: tuple[Tensor, Head] | None = None,
    kl_gradient: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> TokenStats:
    """Statistics of ``targets`` [T] under softmax(head(hidden) / temperature), hidden [T, H].

    ``teacher`` is the teacher's hidden states [T, H'] and head; both heads must have the same number of rows,
    and the teacher is read at temperature 1.
    """
    size = max(1, chunk_elements // head.weight.shape[0])
    several = torch.is_grad_enabled() and len(targets) > size
    parts = []
    for start in range(0, max(len(targets), 1), size):
        span = slice(start, start + size)
        beside = None if teacher is None else teacher[0][span]
        arguments = (hidden[span], head, targets[span], temperature, beside, teacher and teacher[1], kl_gradient)
        parts.append(
            checkpoint(_chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
            if several
            else _chunk(*arguments)
        )
    logprobs, entropy, teacher_logprobs, kl = zip(*parts, strict=True)
    if teacher is None:
        return TokenStats(torch.cat(logprobs), torch.cat(entropy))
    return TokenStats(torch.cat(logprobs), torch.cat(entropy), torch.cat(teacher_logprobs), torch.cat(kl))


def _log_softmax(hidden: Tensor, head: Head, temperature: float) -> Tensor:
    logits = linear(hidden, head.weight).float()
    if temperature != 1:
        logits = logits / temperature
    return (logits if head.bias is None else logits + head.bias).log_softmax(dim=-1)


def _chunk(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: float,
    teacher_hidden: Tensor | None,
    teacher_head: Head | None,
    kl_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    student = _log_softmax(hidden, head, temperature)
    chosen = student.gather(1, targets[:, None])[:, 0]
    frozen = student.detach()
    entropy = -(frozen.exp() * frozen).sum(dim=-1)
    if teacher_hidden is None or teacher_head is None:
        return chosen, entropy, None, None
    with torch.no_grad():
        teacher = _log_softmax(teacher_hidden, teacher_head, 1.0)
        teacher_chosen = teacher.gather(1, targets[:, None])[:, 0]
    policy = student if kl_gradient else frozen
    kl = (policy.exp() * (policy - teacher)).sum(dim=-1)
    return chosen, entropy, teacher_chosen, kl
