"""The vision-language student: chats with images to ids and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vold.images import Pixels
from vold.models.encoder import EncodedPrompt, Encoder, Message
from vold.models.language_model import LanguageModel


@dataclass(frozen=True)
class Student(LanguageModel):
    """``pixel_limits`` (min, max pixels of one image after resizing) override the checkpoint's when given."""

    image_processor: Any
    pixel_limits: tuple[int, int] | None = None

    @cached_property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.image_processor, self.image_token_id, self.pixel_limits)

    def encode(self, messages: str | Sequence[Message], images: Sequence[Path | Image.Image] = ()) -> EncodedPrompt:
        """As ``Encoder.encode``."""
        return self.encoder.encode(messages, images)

    def visual_embeddings(self, pixels: Sequence[Pixels]) -> Tensor:
        """What the vision tower makes of all these images: [visual tokens, hidden].

        While nothing of the tower is trained it looks at a prompt's images once: rollouts and every micro-batch of
        their training then read the same embeddings, which go when the pixels go.
        """
        if any(parameter.requires_grad for parameter in self.model.model.visual.parameters()):
            return self._seen(pixels)
        unseen = [item for item in pixels if item.values not in self._embeddings]
        if unseen:
            counts = [sum(self.encoder.visual_tokens(item)) for item in unseen]
            for item, seen in zip(unseen, self._seen(unseen).split(counts), strict=True):
                self._embeddings[item.values] = seen
        return torch.cat([self._embeddings[item.values] for item in pixels])

    def _seen(self, pixels: Sequence[Pixels]) -> Tensor:
        values = torch.cat([item.values for item in pixels]).to(self.device)
        grid = torch.cat([item.grid_thw for item in pixels]).to(self.device)
        return torch.cat(self.model.model.get_image_features(values, grid).pooler_output)

    @cached_property
    def _embeddings(self) -> WeakTensorKeyDictionary:
        return WeakTensorKeyDictionary()

    @cached_property
    def _positions(self) -> WeakTensorKeyDictionary:
        """By the values of a prompt's pixels, whose life it shares: positions by ids."""
        return WeakTensorKeyDictionary()

    def positions(self, ids: Sequence[int], pixels: Pixels | None = None) -> Tensor:
        """The model's own three axes (time, height, width) where there are images; for rollouts and training once."""
        if pixels is None:
            return super().positions(ids)
        if pixels.values not in self._positions:
            self._positions[pixels.values] = {}
        known, key = self._positions[pixels.values], tuple(ids)
        if key not in known:
            known[key] = self._rope_positions(key, pixels)
        return known[key]

    def _rope_positions(self, ids: Sequence[int], pixels: Pixels) -> Tensor:
        tokens = torch.tensor([list(ids)], device=self.device)
        kinds = (tokens == self.image_token_id).int()
        grid = pixels.grid_thw.to(self.device)
        return self.model.model.get_rope_index(tokens, mm_token_type_ids=kinds, image_grid_thw=grid)[0][:, 0]

    def embed(self, ids: Tensor, pixels: Sequence[Pixels] = ()) -> Tensor:
        """The vision tower's output stands where the placeholders are; raises ValueError when their numbers differ."""
        embeds = super().embed(ids)
        if not pixels:
            return embeds
        visual = self.visual_embeddings(pixels)
        places = ids == self.image_token_id
        if int(places.sum()) != len(visual):
            raise ValueError(f"{int(places.sum())} image placeholders in the prompts for {len(visual)} visual tokens")
        return embeds.masked_scatter(places[..., None], visual.to(embeds.dtype))
