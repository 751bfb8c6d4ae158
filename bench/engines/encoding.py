"""Preparation of turns as token ids and pixels, for the engines in this process."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from bench.engines.base import PromptReading
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.models import EncodedPrompt, Encoder, load_encoder


class EncodingPreparer:
    """Implements ``Preparer`` with a checkpoint's tokenizer and image processor, which are read at the first use.

    thinking: as in ``render_chat``. Raises ConfigurationError if an image was not resized to ``pixel_limits``.
    """

    def __init__(self, path: Path, pixel_limits: tuple[int, int] | None = None, thinking: bool | None = None) -> None:
        self.path, self.pixel_limits, self.thinking = path, pixel_limits, thinking

    def __call__(self, parts: Sequence[PromptPart]) -> EncodedPrompt:
        images = [Path(part["path"]) for part in parts if "path" in part]
        prompt = self._encoder.encode(_messages(parts), images)
        if self.pixel_limits is not None and prompt.pixels is not None:
            processor = self._encoder.image_processor
            for image, (_, *grid) in zip(images, prompt.pixels.grid_thw.tolist(), strict=True):
                check_grid(image, grid, processor.patch_size, processor.merge_size, self.pixel_limits)
        return prompt

    def for_checkpoint(self, path: Path) -> "EncodingPreparer":
        """A preparer with the same settings for another checkpoint."""
        return type(self)(path, self.pixel_limits, self.thinking)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.pixel_limits, self.thinking)

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        """None for a turn that cannot be sent. Raises ModelError if the checkpoint cannot read any turn."""
        encoder = self._encoder
        try:
            prompt = self(parts)
        except ConfigurationError:
            raise
        except ValueError:
            return None
        grids = [] if prompt.pixels is None else prompt.pixels.grid_thw.tolist()
        counts = [] if prompt.pixels is None else encoder.visual_tokens(prompt.pixels)
        return PromptReading(
            encoder.text(_messages(parts)), prompt.prompt_ids, tuple((t, h, w) for t, h, w in grids), tuple(counts)
        )

    def sizes(self, prompt: EncodedPrompt) -> tuple[int, int]:
        """The length of a prompt in tokens, and how many of these positions are images."""
        return len(prompt.prompt_ids), prompt.prompt_ids.count(self._encoder.image_token_id)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        return self._encoder.tokenizer.decode(list(ids), skip_special_tokens=True)

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder(self.path, self.pixel_limits, self.thinking)


def check_grid(image: Path, grid: Sequence[int], patch: int, merge: int, limits: tuple[int, int]) -> None:
    """Raise ConfigurationError if an image was resized to fewer or more pixels than ``limits`` allow.

    grid: patches in height and width. An image that is only one merged patch high or wide may be larger, because it
    cannot be made smaller.
    """
    pixels = math.prod(grid) * patch**2
    least, most = limits
    if pixels < least or (pixels > most and min(grid) > merge):
        size = f"{grid[1] * patch} x {grid[0] * patch} = {pixels} pixels"
        raise ConfigurationError(
            f"{image}: resized to {size}, outside of {least} to {most}, because the checkpoint's image processor "
            "does not follow min_pixels and max_pixels. Remove these settings, or use a preprocessor_config.json "
            "like Qwen2-VL's"
        )


def _messages(parts: Sequence[PromptPart]) -> list[dict[str, object]]:
    content: list[dict[str, object]] = [
        {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part.get("text", "")}
        for part in parts
    ]
    return [{"role": "user", "content": content}]
