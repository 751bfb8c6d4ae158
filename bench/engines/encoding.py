"""Turns as token ids and pixels, for the engines that take them so."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.engines.base import Reading
from bench.prompts import Part
from vold.models import EncodedPrompt, Encoder, load_encoder
from vold.models.encoder import render_chat


class EncodingPreparer:
    """Implements ``Preparer`` with a checkpoint's tokenizer and image processor, read where it is first used."""

    def __init__(self, path: Path, pixel_limits: tuple[int, int] | None) -> None:
        self.path, self.pixel_limits = path, pixel_limits

    def __call__(self, parts: Sequence[Part]) -> EncodedPrompt:
        return self._encoder.encode(_messages(parts), [Path(part["path"]) for part in parts if "path" in part])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.pixel_limits)

    def read(self, parts: Sequence[Part]) -> Reading | None:
        """None for a turn that cannot be asked."""
        try:
            prompt = self(parts)
        except ValueError:
            return None
        grids = [] if prompt.pixels is None else prompt.pixels.grid_thw.tolist()
        counts = [] if prompt.pixels is None else self._encoder.visual_tokens(prompt.pixels)
        text = render_chat(self._encoder.tokenizer, _messages(parts))
        return Reading(text, prompt.ids, tuple((t, h, w) for t, h, w in grids), tuple(counts))

    def sizes(self, prompt: EncodedPrompt) -> tuple[int, int]:
        """(tokens of the prompt, positions of pictures among them)."""
        return len(prompt.ids), prompt.ids.count(self._encoder.image_token_id)

    @cached_property
    def _encoder(self) -> Encoder:
        return load_encoder(self.path, self.pixel_limits)


def _messages(parts: Sequence[Part]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [
        {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part.get("text", "")}
        for part in parts
    ]
    return [{"role": "user", "content": content}]
