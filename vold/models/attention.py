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
    """As transformers' ``sdpa``; with a ``layout`` the batch is a packed one.

    A single query position per row (decoding) is computed with its heads as query positions: heads that share keys
    then read them once. query: [rows, heads, positions, head_dim]; returns [rows, positions, heads, head_dim].
    """
    if layout is not None:
        return layout.attend(query, key, value, kwargs.get("scaling")), None
    rows, heads, positions, size = query.shape
    if positions > 1 or heads == key.shape[1]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    shared = query.view(rows, key.shape[1], heads // key.shape[1], size)
    out = scaled_dot_product_attention(shared, key, value, attn_mask=attention_mask, scale=kwargs.get("scaling"))
    return out.reshape(rows, 1, heads, size), None


def register() -> str:
    """Make the attention known to transformers and return its name."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
