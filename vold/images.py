"""Opens images from any source, and holds the output of the image processor."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np
    import torch

MAX_PIXELS = 64_000_000
"""Most pixels of an image that is opened."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The output of the image processor for all images of a prompt.

    values: [patches, channels * temporal * patch * patch], float32.
    grid_thw: [images, 3], int64: patches of each image in time, height and width.
    """

    values: "torch.Tensor"
    grid_thw: "torch.Tensor"

    def __reduce__(self) -> "tuple[Callable[..., Pixels], tuple[np.ndarray, np.ndarray]]":
        """Pickle by value, because shared memory of tensors ends with the process that created them."""
        return _pixels_of, (self.values.numpy(), self.grid_thw.numpy())


def _pixels_of(values: "np.ndarray", grid_thw: "np.ndarray") -> Pixels:
    import torch

    return Pixels(torch.from_numpy(values), torch.from_numpy(grid_thw))


def open_image(path: Path) -> Image.Image:
    """An RGB copy of the image at ``path``.

    Raises ValueError with the file's name if it is missing, damaged, not an image, or has more than ``MAX_PIXELS``
    pixels. The size is read from the header, before anything is decoded.
    """
    return _open(path, str(path))


def decode_image(content: bytes, name: str) -> Image.Image:
    """An RGB copy of the image in ``content``. ``name`` identifies it in errors, which are as in ``open_image``."""
    return _open(io.BytesIO(content), name)


def _open(source: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{name}: an image of {image.width} x {image.height}; the limit is {MAX_PIXELS} pixels, "
                    "so make it smaller"
                )
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such image; check the path") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: unreadable image ({error}); replace the file") from error
