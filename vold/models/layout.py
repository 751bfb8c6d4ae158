"""Attention over packed batches, which have no padding.

A packed batch is one row [1, T] of sequences end to end. Only attention needs to know where a sequence ends, from a
``Layout``. On GPUs in half precision, attention is one call of torch's variable-length kernel. Otherwise sequences of
similar length are padded to a common length for the attention alone.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn: Any = None

# A segment shorter than this share of the longest in its bucket starts the next bucket.
_BUCKET_SHARE = 0.75
_VARLEN = varlen_attn is not None and {"enable_gqa", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` consecutive tokens of a packed batch. Each sees all of ``prefix`` and the tokens before it.

    start: position of the first token in the batch.
    prefix: an earlier segment without a prefix, such as a prompt that several completions continue.
    """

    start: int
    length: int
    prefix: "Segment | None" = None

    @property
    def keys(self) -> int:
        """Number of tokens that the last token sees."""
        return self.length + (self.prefix.length if self.prefix else 0)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Segments padded to a common length.

    Padding is on the right, where no real token sees it, and refers to token 0.

    queries, keys: positions in the batch [rows, longest].
    mask: [rows, 1, queries, keys]; None if queries and keys are the same tokens, where a causal mask is enough.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor | None


class Layout:
    """The segments of a packed batch, in order, and attention over them."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments, self.device = tuple(segments), device

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Attention of a packed batch.

        query: [1, heads, T, head_dim].
        key, value: [1, key heads, T, head_dim].
        Returns [1, T, heads, head_dim].
        """
        # Under autocast the rotation leaves queries and keys in float32, while values are in bfloat16.
        query, key, value = (states[0].transpose(0, 1) for states in (query.to(value), key.to(value), value))
        if _VARLEN and query.is_cuda and query.dtype != torch.float32:
            return self._varlen(query, key, value, scale)[None]
        return self._padded(query, key, value, scale)[None]

    def _varlen(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        queries, keys = self._offsets
        if self._key_index is not None:
            key, value = key.index_select(0, self._key_index), value.index_select(0, self._key_index)
        # If a segment has fewer queries than keys, the kernel aligns the last query with the last key.
        return varlen_attn(
            query,
            key,
            value,
            queries,
            keys,
            max(segment.length for segment in self.segments),
            max(segment.keys for segment in self.segments),
            scale=scale,
            window_size=(-1, 0),
            enable_gqa=True,
        )

    def _padded(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        size = query.shape[-1]

        def rows(states: Tensor, index: Tensor) -> Tensor:
            """States [T, heads, head_dim] as padded rows [rows, heads, longest, head_dim]."""
            # Unlike indexing, index_select sums its gradient in a fixed order, even on several threads.
            selected = states.flatten(1).index_select(0, index.flatten())
            return selected.view(*index.shape, -1, size).transpose(1, 2)

        parts = []
        for bucket in self._buckets:
            mask = None if bucket.mask is None else bucket.mask.to(query)
            out = _shared_heads(
                rows(query, bucket.queries), rows(key, bucket.keys), rows(value, bucket.keys), mask, scale
            )
            parts.append(out.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(parts).index_select(0, self._back).view(len(query), -1, size)

    @cached_property
    def _offsets(self) -> tuple[Tensor, Tensor]:
        """Cumulative lengths [segments + 1] of queries and of keys."""
        lengths = [s.length for s in self.segments], [s.keys for s in self.segments]
        queries, keys = (
            torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=self.device) for counts in lengths
        )
        return queries, keys

    @cached_property
    def _key_index(self) -> Tensor | None:
        """Positions of every segment's keys, end to end; None if they are the whole batch in order."""
        if not any(segment.prefix for segment in self.segments):
            return None
        return torch.cat([_key_positions(segment) for segment in self.segments]).to(self.device)

    @cached_property
    def _buckets(self) -> list[_Bucket]:
        return [_bucket(segments, self.device) for segments in self._groups]

    @cached_property
    def _groups(self) -> list[list[Segment]]:
        """Segments grouped by similar length. Those with and without a prefix are in different groups."""
        groups: list[list[Segment]] = []
        for segment in sorted(self.segments, key=lambda s: (s.prefix is not None, -s.length, s.start)):
            first = groups[-1][0] if groups else None
            same_kind = first is not None and (first.prefix is None) == (segment.prefix is None)
            if first and same_kind and segment.length >= _BUCKET_SHARE * first.length:
                groups[-1].append(segment)
            else:
                groups.append([segment])
        return groups

    @cached_property
    def _back(self) -> Tensor:
        """Position of each token of the batch in the padded outputs of all buckets."""
        back = torch.empty(sum(segment.length for segment in self.segments), dtype=torch.long)
        offset = 0
        for group in self._groups:
            for segment in group:
                back[segment.start : segment.start + segment.length] = torch.arange(offset, offset + segment.length)
                offset += group[0].length
        return back.to(self.device)


def _positions(segment: Segment) -> Tensor:
    return torch.arange(segment.start, segment.start + segment.length)


def _key_positions(segment: Segment) -> Tensor:
    own = _positions(segment)
    return own if segment.prefix is None else torch.cat([_positions(segment.prefix), own])


def _bucket(segments: Sequence[Segment], device: torch.device) -> _Bucket:
    queries = pad_sequence([_positions(segment) for segment in segments], batch_first=True)
    if segments[0].prefix is None:
        return _Bucket(queries.to(device), queries.to(device), None)
    keys = pad_sequence([_key_positions(segment) for segment in segments], batch_first=True)
    before = torch.tensor([segment.keys - segment.length for segment in segments])
    last = before[:, None, None] + torch.arange(queries.shape[1])[None, :, None]
    mask = torch.zeros(len(segments), queries.shape[1], keys.shape[1])
    mask.masked_fill_(torch.arange(keys.shape[1]) > last, -torch.inf)
    return _Bucket(queries.to(device), keys.to(device), mask[:, None].to(device))


def _shared_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention whose query heads share key heads. It is causal if there is no mask."""
    shares = query.shape[1] // key.shape[1]
    if mask is not None and query.is_cuda:  # with a mask, only the slow kernel on GPUs supports shared heads
        key, value, shares = key.repeat_interleave(shares, 1), value.repeat_interleave(shares, 1), 1
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shares > 1
    )
