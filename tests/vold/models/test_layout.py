"""Attention over packed batches against attention over each segment on its own."""

import pytest
import torch
from torch import Tensor

from vold.models import layout
from vold.models.layout import Layout, Segment

PROMPT = Segment(0, 5)
SHARED = [PROMPT, Segment(5, 9, PROMPT), Segment(14, 2, PROMPT), Segment(16, 4), Segment(20, 1, PROMPT)]
APART = [Segment(0, 5), Segment(5, 9), Segment(14, 1)]
HEADS, KEY_HEADS, SIZE = 4, 2, 8


def states(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as a model passes them: [1, heads, T, head_dim]."""
    draw = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, heads, tokens, SIZE, generator=draw, dtype=torch.float64).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )  # type: ignore[return-value]


def causal(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Attention of one segment [heads, tokens, head_dim] by its formula. The last query sees the last key."""
    key, value = key.repeat_interleave(HEADS // KEY_HEADS, 0), value.repeat_interleave(HEADS // KEY_HEADS, 0)
    scores = query @ key.transpose(1, 2) * scale
    ahead = torch.ones_like(scores, dtype=torch.bool).triu(key.shape[1] - query.shape[1] + 1)
    return scores.masked_fill(ahead, -torch.inf).softmax(-1) @ value


def by_formula(segments: list[Segment], query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    parts = []
    for segment in segments:
        own = list(range(segment.start, segment.start + segment.length))
        seen = (list(range(segment.prefix.start, segment.prefix.length)) if segment.prefix else []) + own
        parts.append(causal(query[0][:, own], key[0][:, seen], value[0][:, seen], scale))
    return torch.cat(parts, dim=1).transpose(0, 1)[None]


@pytest.mark.parametrize("segments", [SHARED, APART])
def test_outputs_and_gradients_equal_those_of_the_formula(segments: list[Segment]) -> None:
    tokens = sum(segment.length for segment in segments)
    given = states(tokens)
    weights = torch.randn(1, tokens, HEADS, SIZE, dtype=torch.float64)
    out = Layout(segments, torch.device("cpu")).attend(*given, 0.3)
    expected = by_formula(segments, *given, 0.3)
    torch.testing.assert_close(out, expected)
    ours = torch.autograd.grad((out * weights).sum(), given)
    theirs = torch.autograd.grad((expected * weights).sum(), given)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("segments", [SHARED, APART])
def test_the_variable_length_kernel_gets_the_same_layout(
    segments: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's kernel runs only on GPUs. A function with its documented behaviour checks the arguments."""

    def documented(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Tensor:
        assert window_size == (-1, 0) and enable_gqa and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert max_q == cu_seq_q.diff().max() and max_k == cu_seq_k.diff().max()
        queries, keys = cu_seq_q.diff().tolist(), cu_seq_k.diff().tolist()
        split = zip(query.split(queries), key.split(keys), value.split(keys), strict=True)
        return torch.cat(
            [
                causal(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), scale).transpose(0, 1)
                for q, k, v in split
            ]
        )

    monkeypatch.setattr(layout, "varlen_attn", documented)
    given = states(sum(segment.length for segment in segments))
    query, key, value = (s[0].transpose(0, 1) for s in given)
    out = Layout(segments, torch.device("cpu"))._varlen(query, key, value, 0.3)
    torch.testing.assert_close(out[None], by_formula(segments, *given, 0.3))
