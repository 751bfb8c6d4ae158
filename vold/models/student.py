"""The vision-language student."""

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
    """A vision-language model.

    pixel_limits: fewest and most pixels of an image after resizing; None takes the checkpoint's.
    """

    image_processor: Any
    pixel_limits: tuple[int, int] | None = None

    @cached_property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.image_processor, self.image_token_id, self.pixel_limits)

    def encode(self, messages: str | Sequence[Message], images: Sequence[Path | Image.Image] = ()) -> EncodedPrompt:
        """The prompt as the model reads it; see ``Encoder.encode``."""
        return self.encoder.encode(messages, images)

    def visual_embeddings(self, pixels: Sequence[Pixels]) -> Tensor:
        """The vision tower's output [visual tokens, hidden] for all images.

        If no part of the tower is trained, the output for a prompt's images is cached. Rollouts and all micro-batches
        of their training use the same embeddings, which are freed together with the pixels.
        """
        if any(parameter.requires_grad for parameter in self.model.model.visual.parameters()):
            return self._run_tower(pixels)
        missing = [item for item in pixels if item.values not in self._embeddings]
        if missing:
            counts = [sum(self.encoder.visual_tokens(item)) for item in missing]
            for item, embeddings in zip(missing, self._run_tower(missing).split(counts), strict=True):
                self._embeddings[item.values] = embeddings
        return torch.cat([self._embeddings[item.values] for item in pixels])

    def _run_tower(self, pixels: Sequence[Pixels]) -> Tensor:
        values = torch.cat([item.values for item in pixels]).to(self.device)
        grid = torch.cat([item.grid_thw for item in pixels]).to(self.device)
        return torch.cat(self.model.model.get_image_features(values, grid).pooler_output)

    @cached_property
    def _embeddings(self) -> WeakTensorKeyDictionary:
        return WeakTensorKeyDictionary()

    @cached_property
    def _positions(self) -> WeakTensorKeyDictionary:
        """For each prompt's pixel values, and freed with them: positions by ids."""
        return WeakTensorKeyDictionary()

    def positions(self, ids: Sequence[int], pixels: Pixels | None = None) -> Tensor:
        """Rotary positions [axes, length] of one prompt, with three axes (time, height, width) if it has images.

        Positions of prompts with images are cached for rollouts and training.
        """
        if pixels is None:
            return super().positions(ids)
        if pixels.values not in self._positions:
            self._positions[pixels.values] = {}
        cache, key = self._positions[pixels.values], tuple(ids)
        if key not in cache:
            cache[key] = self._rope_positions(key, pixels)
        return cache[key]

    def _rope_positions(self, ids: Sequence[int], pixels: Pixels) -> Tensor:
        tokens = torch.tensor([list(ids)], device=self.device)
        kinds = (tokens == self.image_token_id).int()
        grid = pixels.grid_thw.to(self.device)
        return self.model.model.get_rope_index(tokens, mm_token_type_ids=kinds, image_grid_thw=grid)[0][:, 0]

    def embed(self, ids: Tensor, pixels: Sequence[Pixels] = ()) -> Tensor:
        """Input embeddings [T, hidden] of ids [T]. The placeholders get the vision tower's output.

        Raises ValueError if there are more or fewer placeholders than visual tokens.
        """
        embeds = super().embed(ids)
        if not pixels:
            return embeds
        visual = self.visual_embeddings(pixels)
        placeholders = ids == self.image_token_id
        count = int(placeholders.sum())
        if count != len(visual):
            raise ValueError(f"the prompts have {count} image placeholders for {len(visual)} visual tokens")
        return embeds.masked_scatter(placeholders[..., None], visual.to(embeds.dtype))
