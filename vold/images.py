"""Images: opening those that come from anywhere, and what the image processor makes of them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Pixels:
    """A prompt's images as the image processor left them.

    values: [patches, channels * temporal * patch * patch] float32; grid_thw: [images, 3] int64.
    """

    values: "torch.Tensor"
    grid_thw: "torch.Tensor"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels between processes by value: tensors would share memory that ends with the process that made it."""
        return _pixels_of, (self.values.numpy(), self.grid_thw.numpy())


def _pixels_of(values: Any, grid_thw: Any) -> Pixels:
    import torch

    return Pixels(torch.from_numpy(values), torch.from_numpy(grid_thw))


def open_image(path: Path) -> Image.Image:
    """An RGB copy of the image at ``path``.

    Raises ValueError naming the file when it is missing, no image, damaged, or larger than ``MAX_PIXELS``
    (checked from the header, before anything is decoded).
    """
    return _open(path, str(path))


def decode_image(content: bytes, name: str) -> Image.Image:
    """The same of an image's bytes; errors call it ``name``."""
    return _open(io.BytesIO(content), name)


def _open(source: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{name}: an image of {image.width} x {image.height}; the limit is {MAX_PIXELS} pixels"
                )
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such image") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: unreadable image ({error}); replace the file") from error
