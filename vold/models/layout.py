"""Who sees whom in a padding-free batch, and attention over it.

A packed batch is one row [1, T] in which sequences lie end to end. Everything but attention runs on it as it is;
attention is told by a ``Layout`` who sees whom. On GPUs in half precision that is one call of torch's variable-length
kernel; elsewhere rows of similar length are padded side by side for the attention alone.
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

# A row shorter than this share of a bucket's longest starts the next bucket.
_BUCKET_SHARE = 0.75
_VARLEN = varlen_attn is not None and {"enable_gqa", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


@dataclass(frozen=True, slots=True)
class Segment:
    """``length`` tokens of a packed batch from ``start`` on: each sees all of ``prefix`` and its own past.

    A prefix is an earlier segment without a prefix of its own: a prompt that several completions continue.
    """

    start: int
    length: int
    prefix: "Segment | None" = None

    @property
    def keys(self) -> int:
        """How many tokens the last one sees."""
        return self.length + (self.prefix.length if self.prefix else 0)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Segments padded side by side: places of queries [rows, longest] and keys in the batch, and who sees whom.

    Padding points at token 0. It lies to the right, where no real token sees it. ``mask`` [rows, 1, queries, keys]
    is None where queries and keys are the same tokens: then plain causality suffices.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor | None


class Layout:
    """Who sees whom in a packed batch of ``segments``, which lie end to end in the order given."""

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments, self.device = tuple(segments), device

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """query [1, heads, T, head_dim], key and value [1, key heads, T, head_dim] -> [1, T, heads, head_dim]."""
        # Under autocast the rotation leaves queries and keys in float32 beside values in bfloat16.
        query, key, value = (states[0].transpose(0, 1) for states in (query.to(value), key.to(value), value))
        if _VARLEN and query.is_cuda and query.dtype != torch.float32:
            return self._varlen(query, key, value, scale)[None]
        return self._padded(query, key, value, scale)[None]

    def _varlen(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        queries, keys = self._offsets
        if self._seen is not None:
            key, value = key.index_select(0, self._seen), value.index_select(0, self._seen)
        # Where a segment has fewer queries than keys, the window ends at the last key for the last query.
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

        def rows(states: Tensor, places: Tensor) -> Tensor:
            """[T, heads, head_dim] -> [rows, heads, longest, head_dim]."""
            # Not by indexing: the gradient of index_select is summed in a fixed order, on several threads too.
            picked = states.flatten(1).index_select(0, places.flatten())
            return picked.view(*places.shape, -1, size).transpose(1, 2)

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
            torch.tensor([0, *accumulate(each)], dtype=torch.int32, device=self.device) for each in lengths
        )
        return queries, keys

    @cached_property
    def _seen(self) -> Tensor | None:
        """Places of every segment's keys, laid end to end; None where they are the batch itself."""
        if not any(segment.prefix for segment in self.segments):
            return None
        return torch.cat([_key_places(segment) for segment in self.segments]).to(self.device)

    @cached_property
    def _buckets(self) -> list[_Bucket]:
        return [_bucket(segments, self.device) for segments in self._groups]

    @cached_property
    def _groups(self) -> list[list[Segment]]:
        """Segments of similar length, those with a prefix apart from those without."""
        groups: list[list[Segment]] = []
        for segment in sorted(self.segments, key=lambda s: (s.prefix is not None, -s.length, s.start)):
            first = groups[-1][0] if groups else None
            alike = first is not None and (first.prefix is None) == (segment.prefix is None)
            if first and alike and segment.length >= _BUCKET_SHARE * first.length:
                groups[-1].append(segment)
            else:
                groups.append([segment])
        return groups

    @cached_property
    def _back(self) -> Tensor:
        """Where each token of the batch lies among the buckets' padded outputs."""
        back = torch.empty(sum(segment.length for segment in self.segments), dtype=torch.long)
        offset = 0
        for group in self._groups:
            for segment in group:
                back[segment.start : segment.start + segment.length] = torch.arange(offset, offset + segment.length)
                offset += group[0].length
        return back.to(self.device)


def _places(segment: Segment) -> Tensor:
    return torch.arange(segment.start, segment.start + segment.length)


def _key_places(segment: Segment) -> Tensor:
    return _places(segment) if segment.prefix is None else torch.cat([_places(segment.prefix), _places(segment)])


def _bucket(segments: Sequence[Segment], device: torch.device) -> _Bucket:
    queries = pad_sequence([_places(segment) for segment in segments], batch_first=True)
    if segments[0].prefix is None:
        return _Bucket(queries.to(device), queries.to(device), None)
    keys = pad_sequence([_key_places(segment) for segment in segments], batch_first=True)
    before = torch.tensor([segment.keys - segment.length for segment in segments])
    last = before[:, None, None] + torch.arange(queries.shape[1])[None, :, None]
    mask = torch.zeros(len(segments), queries.shape[1], keys.shape[1])
    mask.masked_fill_(torch.arange(keys.shape[1]) > last, -torch.inf)
    return _Bucket(queries.to(device), keys.to(device), mask[:, None].to(device))


def _shared_heads(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention whose query heads share key heads; causal where there is no mask."""
    shares = query.shape[1] // key.shape[1]
    if mask is not None and query.is_cuda:  # with a mask, only the slow kernel there knows of shared heads
        key, value, shares = key.repeat_interleave(shares, 1), value.repeat_interleave(shares, 1), 1
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=shares > 1
    )
