"""One decoding position through a language model's layers, with a key-value cache.

Any model goes through transformers' layers. There a position costs some dozens of small operations and as many calls
of Python a layer, which is most of the time of a small batch. The layers of Qwen2, Qwen2.5-VL and Qwen3 are therefore
written out here, with projections of the same input joined into one product.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu
from transformers.cache_utils import Cache

from vold.models.attention import attend_one_position
from vold.models.language_model import LanguageModel

_WRITTEN_OUT = {"qwen2", "qwen2_5_vl_text", "qwen3"}
# Rotations that depend on the position alone, and not on how long the sequence has become.
_FIXED_ROTATIONS = {"default", "linear", "llama3", "yarn"}


class Decoder(Protocol):
    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        """Final hidden states [rows, hidden] of ids [rows] at rotary positions [rows]; their keys join ``cache``.

        mask: additive, [rows, 1, 1, keys]; None where all keys are seen.
        """
        ...


def decoder_of(model: LanguageModel, longest: int) -> Decoder:
    """For positions below ``longest``. It holds the weights of this moment: after an update, make another."""
    trunk: Any = model.trunk
    config = trunk.config
    known = (
        config.model_type in _WRITTEN_OUT
        and config.hidden_act == "silu"
        and config.rope_parameters["rope_type"] in _FIXED_ROTATIONS
        # An adapted or quantised projection is more than its weight.
        and all(type(p) is torch.nn.Linear for layer in trunk.layers for p in _projections(layer))
    )
    return _QwenDecoder(trunk, longest) if known else _LayerDecoder(trunk)


def _projections(layer: Any) -> tuple[torch.nn.Module, ...]:
    own, mlp = layer.self_attn, layer.mlp
    return own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj


class _LayerDecoder:
    """Through the layers of transformers."""

    def __init__(self, trunk: Any) -> None:
        self.trunk = trunk

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        return self.trunk(
            input_ids=ids[:, None],
            attention_mask={"full_attention": mask},
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]


class _Joined(NamedTuple):
    """Linear layers of one input as one: their outputs lie side by side."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, *layers: Any) -> "_Joined":
        # Under autocast they are converted here, once; products would convert them at every position.
        weight = layers[0].weight
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        parts = [[layer.weight for layer in layers], [layer.bias for layer in layers if layer.bias is not None]]
        joined = [torch.cat(part).to(dtype) if len(part) > 1 else part[0].to(dtype) for part in parts if part]
        return cls(joined[0], joined[1] if len(joined) > 1 else None)

    def __call__(self, states: Tensor) -> Tensor:
        return linear(states, self.weight, self.bias)


class _Norm(NamedTuple):
    """RMSNorm as transformers computes it: in float32 up to the scale."""

    weight: Tensor
    epsilon: float

    @classmethod
    def of(cls, norm: Any) -> "_Norm":
        return cls(norm.weight, norm.variance_epsilon)

    def __call__(self, states: Tensor) -> Tensor:
        return self.weight * rms_norm(states.float(), self.weight.shape, eps=self.epsilon).to(states.dtype)


class _QwenDecoder:
    """The layers of Qwen2, Qwen2.5-VL and Qwen3 written out: pre-norm, shared key heads, rotary positions, SwiGLU.

    After a prompt the axes of M-RoPE agree, so one table of rotations by position does for text and pictures.
    """

    def __init__(self, trunk: Any, longest: int) -> None:
        self.embed = trunk.embed_tokens
        self.layers = [_QwenLayer(layer) for layer in trunk.layers]
        self.norm = _Norm.of(trunk.norm)
        weight = trunk.embed_tokens.weight
        places = torch.arange(longest, device=weight.device)[None]
        if trunk.config.model_type == "qwen2_5_vl_text":
            places = places.expand(3, 1, -1)
        cosine, sine = (table.view(longest, 1, -1) for table in trunk.rotary_emb(weight, places))
        half = sine.shape[-1] // 2
        # The sign of the half that is turned the other way.
        self.rotations = cosine, torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)

    def __call__(self, ids: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        states = self.embed(ids)
        cosine, sine = (table[positions] for table in self.rotations)
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            states = layer(states, cosine, sine, kept, mask)
        return self.norm(states)


class _QwenLayer:
    def __init__(self, layer: Any) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self.size, self.scale = own.head_dim, own.scaling
        self.heads, self.key_heads = (p.out_features // self.size for p in (own.q_proj, own.k_proj))
        self.before, self.between = _Norm.of(layer.input_layernorm), _Norm.of(layer.post_attention_layernorm)
        self.head_norms = (_Norm.of(own.q_norm), _Norm.of(own.k_norm)) if hasattr(own, "q_norm") else None
        self.qkv = _Joined.of(own.q_proj, own.k_proj, own.v_proj)
        self.gate_up = _Joined.of(mlp.gate_proj, mlp.up_proj)
        self.out, self.down = _Joined.of(own.o_proj), _Joined.of(mlp.down_proj)

    def __call__(self, states: Tensor, cosine: Tensor, sine: Tensor, kept: Any, mask: Tensor | None) -> Tensor:
        """states [rows, hidden]; cosine, sine [rows, 1, head_dim]; ``kept`` is the layer of the cache."""
        rows, heads = len(states), self.heads
        projected = self.qkv(self.before(states)).view(rows, -1, self.size)
        turned, value = projected.split([heads + self.key_heads, self.key_heads], dim=1)
        if self.head_norms:
            query, key = turned.split([heads, self.key_heads], dim=1)
            turned = torch.cat([self.head_norms[0](query), self.head_norms[1](key)], dim=1)
        turned = turned * cosine + turned.roll(self.size // 2, -1) * sine
        keys, values = kept.update(turned[:, heads:, None], value[:, :, None])
        attended = attend_one_position(turned[:, :heads], keys, values, mask, self.scale)
        states = states + self.out(attended.reshape(rows, -1))
        gate, up = self.gate_up(self.between(states)).chunk(2, dim=-1)
        return states + self.down(silu(gate).mul_(up))
