"""Chats with images to what a vision-language model is fed; needs the checkpoint's settings, not its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vold.images import Pixels, open_image

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt as the model reads it; ``prompt_ids`` hold one placeholder per visual token."""

    prompt_ids: tuple[int, ...]
    pixels: Pixels | None = None


def render_chat(tokenizer: Any, messages: str | Sequence[Message], thinking: bool | None = None) -> str:
    """The text of a chat up to the place where the assistant speaks; a string is one turn of the user.

    thinking: the template's own switch ``enable_thinking``; None leaves it as the template has it.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    switch = {} if thinking is None else {"enable_thinking": thinking}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switch)


@dataclass(frozen=True)
class Encoder:
    """``pixel_limits`` (min, max pixels of one image after resizing) override the checkpoint's when given.

    thinking: as in ``render_chat``.
    """

    tokenizer: Any
    image_processor: Any
    image_token_id: int
    pixel_limits: tuple[int, int] | None = None
    thinking: bool | None = None

    def encode(self, messages: str | Sequence[Message], images: Sequence[Path | Image.Image] = ()) -> EncodedPrompt:
        """Render the chat and expand each image's placeholder to the number of its visual tokens.

        Content parts are ``{"type": "text", "text": ...}`` and ``{"type": "image"}``; images are taken in order.
        Raises ValueError where the number of images differs from the number of placeholders (also when a
        problem's text smuggles a placeholder in), or where an image cannot be read.
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
        """The rendered chat, an image's placeholder not yet expanded."""
        return render_chat(self.tokenizer, messages, self.thinking)

    def visual_tokens(self, pixels: Pixels) -> list[int]:
        """How many positions each image takes."""
        return (pixels.grid_thw.prod(dim=1) // self.image_processor.merge_size**2).tolist()

    def _pixels(self, images: Sequence[Path | Image.Image]) -> Pixels:
        each = [self._one(image) for image in images]
        return Pixels(torch.cat([pixels.values for pixels in each]), torch.cat([pixels.grid_thw for pixels in each]))

    def _one(self, source: Path | Image.Image) -> Pixels:
        image = open_image(source) if isinstance(source, Path) else source.convert("RGB")
        try:
            features = self.image_processor(images=[image], return_tensors="pt", **self._limits())
        except ValueError as error:
            name = source if isinstance(source, Path) else "an image"
            raise ValueError(f"{name}: {image.width} x {image.height} pixels cannot be resized ({error})") from error
        return Pixels(features["pixel_values"], features["image_grid_thw"])

    def _limits(self) -> dict[str, Any]:
        """As the image processor takes them."""
        if self.pixel_limits is None:
            return {}
        return {"size": dict(zip(("shortest_edge", "longest_edge"), self.pixel_limits, strict=True))}
