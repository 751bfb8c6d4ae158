"""One decoding step of a language model with a key-value cache.

Any model can run through the layers of transformers. A step there needs dozens of small operations and Python calls per
layer, which take most of the time of a small batch. The layers of Qwen2, Qwen2.5-VL and Qwen3 are therefore written out
here. In small models, projections of the same input are joined into one product.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu
from transformers.cache_utils import Cache

from vold.models.attention import attend_one_position
from vold.models.language_model import LanguageModel

_Module = Any
"""A module of transformers. torch types every attribute of a module as ``Tensor | Module``."""
_WRITTEN_OUT = {"qwen2", "qwen2_5_vl_text", "qwen3"}
JOINED_BYTES = 1 << 28
"""Projections of more bytes in all are not joined: it copies their weights, and large products gain nothing."""
# Rotations that depend only on the position, and not on the length of the sequence.
_FIXED_ROTATIONS = {"default", "linear", "llama3", "yarn"}


class Decoder(Protocol):
    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        """Final hidden states [rows, hidden] of ids [rows] at rotary positions [rows]. Adds their keys to ``cache``.

        mask: additive, [rows, 1, 1, keys]. None if every row sees all keys.
        """
        ...


def decoder_of(model: LanguageModel, longest: int) -> Decoder:
    """A decoder for positions below ``longest``. It holds the present weights, so it is useless after an update."""
    trunk: _Module = model.trunk
    config = trunk.config
    is_written_out = (
        config.model_type in _WRITTEN_OUT
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in _FIXED_ROTATIONS
        # An adapted or quantised projection is more than its weight.
        and all(type(p) is torch.nn.Linear for layer in trunk.layers for p in _projections(layer))
    )
    return _QwenDecoder(trunk, longest) if is_written_out else _LayerDecoder(trunk)


def _projections(layer: _Module) -> tuple[torch.nn.Linear, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        mlp.gate_proj,
        mlp.up_proj,
        mlp.down_proj,
    )


class _LayerDecoder:
    """Decodes through the layers of transformers."""

    def __init__(self, trunk: torch.nn.Module) -> None:
        self.trunk = trunk

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        return self.trunk(
            input_ids=ids[:, None],
            attention_mask={"full_attention": mask},
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]


class _Projection:
    """Linear layers of one input, with their outputs concatenated.

    joined: whether to compute them as one product with a copy of the weights.
    """

    def __init__(self, *layers: torch.nn.Linear, joined: bool = False) -> None:
        kind, dtype = layers[0].weight.device.type, layers[0].weight.dtype
        if torch.is_autocast_enabled(kind):
            # Converted once here. Otherwise every product would convert it.
            dtype = torch.get_autocast_dtype(kind)
        self.weights = [layer.weight.to(dtype) for layer in layers]
        self.biases = [None if layer.bias is None else layer.bias.to(dtype) for layer in layers]
        if joined:
            biases = [bias for bias in self.biases if bias is not None]
            self.weights, self.biases = [torch.cat(self.weights)], [torch.cat(biases) if biases else None]

    def __call__(self, states: Tensor) -> Tensor:
        outputs = [linear(states, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class _Norm(NamedTuple):
    """RMSNorm as transformers computes it: in float32, but the scale is applied in the type of the states."""

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: _Module) -> "_Norm":
        return cls(norm.weight, norm.variance_epsilon)

    def __call__(self, states: Tensor) -> Tensor:
        if states.dtype == self.weight.dtype == torch.float32:
            return rms_norm(states, self.weight.shape, self.weight, self.epsilon)
        return self.weight * rms_norm(states.float(), self.weight.shape, eps=self.epsilon).to(states.dtype)


class _QwenDecoder:
    """The layers of Qwen2, Qwen2.5-VL and Qwen3 written out: pre-norm, shared key heads, rotary positions, SwiGLU.

    The three axes of M-RoPE are equal after the prompt. So one table of rotations suffices for text and images.
    """

    def __init__(self, trunk: _Module, longest: int) -> None:
        self.embed = trunk.embed_tokens
        copied = sum(p.weight.nbytes for layer in trunk.layers for p in _projections(layer))
        self.layers = [_QwenLayer(layer, joined=copied <= JOINED_BYTES) for layer in trunk.layers]
        self.norm = _Norm.of(trunk.norm)
        weight = trunk.embed_tokens.weight
        positions = torch.arange(longest, device=weight.device)[None]
        if trunk.config.model_type == "qwen2_5_vl_text":
            positions = positions.expand(3, 1, -1)
        cosine, sine = (table.view(longest, 1, -1) for table in trunk.rotary_emb(weight, positions))
        half = sine.shape[-1] // 2
        # The first half is rotated in the other direction.
        self.rotations = cosine, torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        states = self.embed(ids)
        cosine, sine = (table[positions] for table in self.rotations)
        for layer, cache_layer in zip(self.layers, cache.layers, strict=True):
            states = layer(states, cosine, sine, cache_layer, mask)
        return self.norm(states)


class _QwenLayer:
    def __init__(self, layer: _Module, joined: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.size, self.scale = attention.head_dim, attention.scaling
        self.heads, self.key_heads = (p.out_features // self.size for p in (attention.q_proj, attention.k_proj))
        self.before, self.between = _Norm.of(layer.input_layernorm), _Norm.of(layer.post_attention_layernorm)
        self.head_norms = (
            (_Norm.of(attention.q_norm), _Norm.of(attention.k_norm)) if hasattr(attention, "q_norm") else None
        )
        self.qkv = _Projection(attention.q_proj, attention.k_proj, attention.v_proj, joined=joined)
        self.gate_up = _Projection(mlp.gate_proj, mlp.up_proj, joined=joined)
        self.out, self.down = _Projection(attention.o_proj), _Projection(mlp.down_proj)

    def __call__(self, states: Tensor, cosine: Tensor, sine: Tensor, cache_layer: Any, mask: Tensor | None) -> Tensor:
        """The layer's output [rows, hidden] for states [rows, hidden]. cosine, sine: [rows, 1, head_dim]."""
        rows, heads = len(states), self.heads
        projected = self.qkv(self.before(states)).view(rows, -1, self.size)
        rotated, value = projected.split([heads + self.key_heads, self.key_heads], dim=1)
        if self.head_norms:
            query, key = rotated.split([heads, self.key_heads], dim=1)
            rotated = torch.cat([self.head_norms[0](query), self.head_norms[1](key)], dim=1)
        rotated = rotated * cosine + rotated.roll(self.size // 2, -1) * sine
        keys, values = cache_layer.update(rotated[:, heads:, None], value[:, :, None])
        attended = attend_one_position(rotated[:, :heads], keys, values, mask, self.scale)
        states = states + self.out(attended.reshape(rows, -1))
        gate, up = self.gate_up(self.between(states)).chunk(2, dim=-1)
        return states + self.down(silu(gate).mul_(up))
