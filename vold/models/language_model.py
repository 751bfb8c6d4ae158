"""A causal language model: its tokenizer, its trunk (ids to hidden states) and its head (hidden states to logits)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vold.images import Pixels
from vold.models.checkpoint import Tokenizer, layer_findings
from vold.models.encoder import Message, render_chat
from vold.models.layout import Layout
from vold.models.recomputation import recomputed_layers

if TYPE_CHECKING:
    from transformers import GenerationConfig

PLACEHOLDERS = ("<|image_pad|>", "<|video_pad|>")
"""Tokens that represent images and videos in a prompt. They have no meaning in a completion."""


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The id that closes an assistant's turn: ``<|im_end|>``, or the tokenizer's EOS. None if there is neither."""
    return tokenizer.get_vocab().get("<|im_end|>", tokenizer.eos_token_id)


def stop_ids(tokenizer: Tokenizer, generation_config: "GenerationConfig | None") -> tuple[int, ...]:
    """Ids that end a completion: the end of turn, the tokenizer's EOS and those of generation_config.json."""
    listed = getattr(generation_config, "eos_token_id", None)
    ids = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id, end_of_turn(tokenizer)}
    return tuple(sorted(index for index in ids if index is not None))


def banned_ids(tokenizer: Tokenizer, rows: int) -> tuple[int, ...]:
    """Ids that must never be drawn: placeholders of images and videos, and embedding ``rows`` without a token."""
    vocabulary = tokenizer.get_vocab()
    placeholders = {vocabulary[name] for name in PLACEHOLDERS if name in vocabulary}
    without_token = set(range(rows)) - set(vocabulary.values())
    return tuple(sorted(placeholders | without_token))


@dataclass(frozen=True)
class LanguageModel:
    """A decoder-only model of transformers. ``path`` is its checkpoint directory."""

    path: Path
    model: Any
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def trunk(self) -> torch.nn.Module:
        """The decoder up to and including its final norm."""
        trunk = self.model.get_decoder()
        if findings := layer_findings(self.path, trunk.config):
            raise ValueError(str(findings[0]))
        return trunk

    @property
    def head(self) -> Tensor:
        """The output embedding [vocabulary rows, hidden]."""
        return self.model.get_output_embeddings().weight

    @cached_property
    def end_of_turn_id(self) -> int:
        """The id that closes an assistant's turn. Raises ValueError if there is none."""
        end = end_of_turn(self.tokenizer)
        if end is None:
            raise ValueError(
                f"{self.path}: the tokenizer has neither <|im_end|> nor an EOS token; set eos_token in "
                "tokenizer_config.json"
            )
        return end

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a completion, as in ``stop_ids``. Raises ValueError if no token ends a turn."""
        return tuple(sorted({self.end_of_turn_id, *stop_ids(self.tokenizer, self.model.generation_config)}))

    @cached_property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that must never be drawn."""
        return banned_ids(self.tokenizer, self.head.shape[0])

    def encode_text(self, messages: str | Sequence[Message]) -> tuple[int, ...]:
        """Ids of a chat, up to the start of the assistant's turn. A string is one turn of the user."""
        return tuple(self.tokenizer(render_chat(self.tokenizer, messages), add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def positions(self, ids: Sequence[int], pixels: Pixels | None = None) -> Tensor:
        """Rotary positions [axes, length] of one prompt. Text has one axis, which counts the tokens."""
        if pixels is not None:
            raise ValueError(f"{self.path}: the model reads only text, but a prompt has images")
        return torch.arange(len(ids), device=self.device)[None]

    def embed(self, ids: Tensor, pixels: Sequence[Pixels] = ()) -> Tensor:
        """Input embeddings [..., hidden] of ids [...]. ``pixels`` are in the order of their placeholders."""
        if pixels:
            raise ValueError(f"{self.path}: the model reads only text, but a prompt has images")
        return self.model.get_input_embeddings()(ids)

    def hidden_states(self, ids: Tensor, positions: Tensor, layout: Layout, pixels: Sequence[Pixels] = ()) -> Tensor:
        """Final hidden states [T, hidden] of a packed batch with ids [T] and rotary positions [axes, T]."""
        with recomputed_layers(self.model):
            return self.trunk(
                inputs_embeds=self.embed(ids, pixels)[None],
                attention_mask={"full_attention": None},
                position_ids=positions if len(positions) == 1 else positions[:, None],
                use_cache=False,
                layout=layout,
            ).last_hidden_state[0]
