"""Attention for packed batches, and for models with fewer key heads than query heads."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vold.models.layout import Layout

NAME = "vold_sdpa"


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The ``sdpa`` attention of transformers, extended to packed batches, which have a ``layout``.

    query: [rows, heads, positions, head_dim].
    key, value: [rows, key heads, keys, head_dim].
    Returns [rows, positions, heads, head_dim].
    """
    if layout is not None:
        return layout.attend(query, key, value, kwargs.get("scaling")), None
    if query.shape[2] > 1 or query.shape[1] == key.shape[1]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attend_one_position(query[:, :, 0], key, value, attention_mask, kwargs.get("scaling"))[:, None], None


def attend_one_position(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention of one query position per row.

    Heads that share keys are computed as query positions of one head, so that the keys are read only once.

    query: [rows, heads, head_dim].
    key, value: [rows, key heads, keys, head_dim].
    mask: as in ``scaled_dot_product_attention``, the same for all heads.
    Returns [rows, heads, head_dim].
    """
    rows, heads, size = query.shape
    shared = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    return scaled_dot_product_attention(shared, key, value, attn_mask=mask, scale=scale).reshape(rows, heads, size)


def register() -> str:
    """Register the attention with transformers and return its name."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
