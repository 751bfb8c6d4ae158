"""The vision-language student: chats with pictures to ids and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vold.images import Pixels, open_image
from vold.models.language_model import LanguageModel, Message


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it; ids hold one placeholder for each visual token."""

    ids: tuple[int, ...]
    pixels: Pixels | None = None


@dataclass(frozen=True)
class Student(LanguageModel):
    """``pixel_limits`` (min, max pixels of one picture after resizing) override the checkpoint's when given."""

    image_processor: Any
    pixel_limits: tuple[int, int] | None = None

    @cached_property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    def encode(self, messages: str | Sequence[Message], images: Sequence[Path | Image.Image] = ()) -> EncodedPrompt:
        """Render the chat and expand each picture's placeholder to the number of its visual tokens.

        Content parts are ``{"type": "text", "text": ...}`` and ``{"type": "image"}``; pictures are taken in order.
        Raises ValueError where the number of pictures differs from the number of placeholders (also when a
        problem's text smuggles a placeholder in), or where a picture cannot be read.
        """
        ids = self.encode_text(messages)
        placeholders = ids.count(self.image_token_id)
        if placeholders != len(images):
            raise ValueError(f"the prompt has {placeholders} picture placeholders for {len(images)} pictures")
        if not images:
            return EncodedPrompt(ids)
        pixels = self._pixels(images)
        merged = self.image_processor.merge_size**2
        counts = iter((pixels.grid_thw.prod(dim=1) // merged).tolist())
        expanded: list[int] = []
        for token in ids:
            expanded.extend([token] * next(counts) if token == self.image_token_id else [token])
        return EncodedPrompt(tuple(expanded), pixels)

    def _pixels(self, images: Sequence[Path | Image.Image]) -> Pixels:
        each = [self._picture(image) for image in images]
        return Pixels(torch.cat([pixels.values for pixels in each]), torch.cat([pixels.grid_thw for pixels in each]))

    def _picture(self, image: Path | Image.Image) -> Pixels:
        picture = open_image(image) if isinstance(image, Path) else image.convert("RGB")
        size = {}
        if self.pixel_limits is not None:
            size = {"size": dict(zip(("shortest_edge", "longest_edge"), self.pixel_limits, strict=True))}
        try:
            features = self.image_processor(images=[picture], return_tensors="pt", **size)
        except ValueError as error:
            name = image if isinstance(image, Path) else "a picture"
            raise ValueError(
                f"{name}: {picture.width} x {picture.height} pixels cannot be resized ({error})"
            ) from error
        return Pixels(features["pixel_values"], features["image_grid_thw"])

    def visual_embeddings(self, pixels: Sequence[Pixels]) -> Tensor:
        """What the vision tower makes of all these pictures: [visual tokens, hidden]."""
        values = torch.cat([item.values for item in pixels]).to(self.device)
        grid = torch.cat([item.grid_thw for item in pixels]).to(self.device)
        return torch.cat(self.model.model.get_image_features(values, grid).pooler_output)

    def positions(self, ids: Sequence[int], pixels: Pixels | None = None) -> Tensor:
        """The model's own three axes (time, height, width) where there are pictures."""
        if pixels is None:
            return super().positions(ids)
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
            raise ValueError(f"{int(places.sum())} picture placeholders in the prompts for {len(visual)} visual tokens")
        return embeds.masked_scatter(places[..., None], visual.to(embeds.dtype))
