"""Turns chats with images into the input of a vision-language model, without its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vold.images import Pixels, open_image
from vold.models.checkpoint import Tokenizer

Message = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it. ``prompt_ids`` contain one placeholder per visual token."""

    prompt_ids: tuple[int, ...]
    pixels: Pixels | None = None


def render_chat(tokenizer: Tokenizer, messages: str | Sequence[Message], thinking: bool | None = None) -> str:
    """The text of a chat, up to the start of the assistant's turn.

    messages: the chat; a string is one turn of the user.
    thinking: value of the template's switch ``enable_thinking``; None keeps the template's default.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    switch = {} if thinking is None else {"enable_thinking": thinking}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switch)


@dataclass(frozen=True)
class Encoder:
    """Encodes chats for one checkpoint.

    pixel_limits: fewest and most pixels of an image after resizing; None takes the checkpoint's.
    thinking: as in ``render_chat``.
    """

    tokenizer: Tokenizer
    image_processor: Any
    image_token_id: int
    pixel_limits: tuple[int, int] | None = None
    thinking: bool | None = None

    def encode(self, messages: str | Sequence[Message], images: Sequence[Path | Image.Image] = ()) -> EncodedPrompt:
        """Render the chat and expand each image's placeholder to the number of its visual tokens.

        Content parts are ``{"type": "text", "text": ...}`` and ``{"type": "image"}``. Images are used in order.
        Raises ValueError if an image cannot be read, or if the number of images differs from that of the placeholders,
        which also happens if the text of a problem contains a placeholder.
        """
        ids = tuple(self.tokenizer(self.text(messages), add_special_tokens=False)["input_ids"])
        placeholders = ids.count(self.image_token_id)
        if placeholders != len(images):
            raise ValueError(f"the prompt has {placeholders} image placeholders for {len(images)} images")
        if not images:
            return EncodedPrompt(ids)
        pixels = self._pixels(images)
        counts = iter(self.visual_tokens(pixels))
        expanded: list[int] = []
        for token in ids:
            expanded.extend([token] * next(counts) if token == self.image_token_id else [token])
        return EncodedPrompt(tuple(expanded), pixels)

    def text(self, messages: str | Sequence[Message]) -> str:
        """The rendered chat, with one placeholder per image."""
        return render_chat(self.tokenizer, messages, self.thinking)

    def visual_tokens(self, pixels: Pixels) -> list[int]:
        """Number of positions that each image takes."""
        return (pixels.grid_thw.prod(dim=1) // self.image_processor.merge_size**2).tolist()

    def _pixels(self, images: Sequence[Path | Image.Image]) -> Pixels:
        parts = [self._image_pixels(image) for image in images]
        return Pixels(torch.cat([part.values for part in parts]), torch.cat([part.grid_thw for part in parts]))

    def _image_pixels(self, source: Path | Image.Image) -> Pixels:
        image = open_image(source) if isinstance(source, Path) else source.convert("RGB")
        try:
            features = self.image_processor(images=[image], return_tensors="pt", **self._limits())
        except ValueError as error:
            name = source if isinstance(source, Path) else "an image"
            raise ValueError(f"{name}: {image.width} x {image.height} pixels cannot be resized ({error})") from error
        return Pixels(features["pixel_values"], features["image_grid_thw"])

    def _limits(self) -> dict[str, dict[str, int]]:
        """The pixel limits as arguments of the image processor."""
        if self.pixel_limits is None:
            return {}
        return {"size": dict(zip(("shortest_edge", "longest_edge"), self.pixel_limits, strict=True))}
