"""Images for servers: resized where limits are set, sent as data URLs, and read without torch."""

import base64
import io
import math
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vold.images import MAX_PIXELS, open_image

# What every server reads; anything else is sent as PNG.
_SENT_AS_THEY_ARE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_MAX_RATIO = 200
_ORIENTATION = 0x0112


def fitting_size(width: int, height: int, factor: int, limits: tuple[int, int]) -> tuple[int, int]:
    """The size to which Qwen's image processors resize (smart_resize in qwen-vl-utils): (width, height) in pixels.

    Both are multiples of ``factor`` (patch size times merge size); their product lies within ``limits`` (min, max)
    and their ratio is kept as far as that allows. Raises ValueError for a ratio above 200.
    """
    if max(width, height) > _MAX_RATIO * min(width, height):
        raise ValueError(f"{width} x {height} pixels; the longer side may be at most {_MAX_RATIO} times the shorter")
    least, most = limits
    nearest = [round(side / factor) * factor for side in (width, height)]
    if math.prod(nearest) > most:
        shrink = math.sqrt(width * height / most)
        nearest = [max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)]
    elif math.prod(nearest) < least:
        grow = math.sqrt(least / (width * height))
        nearest = [math.ceil(side * grow / factor) * factor for side in (width, height)]
    return nearest[0], nearest[1]


def data_url(path: Path, limits: tuple[int, int] | None, factor: int) -> str:
    """The image as a data URL: the file's own bytes where size and colours stay as they are, else a PNG.

    Transparency is dropped and an orientation in the metadata ignored as ``open_image`` does; servers would blend the
    one and turn the image by the other. Raises ValueError for an image that
    cannot be read.
    """
    try:
        with Image.open(path) as header:
            size, kind, plain = header.size, header.format or "", header.mode in ("RGB", "L")
            plain = plain and "transparency" not in header.info and header.getexif().get(_ORIENTATION, 1) == 1
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        open_image(path)  # says what is wrong
        raise
    wanted = size
    if limits is not None:
        try:
            wanted = fitting_size(*size, factor, limits)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if wanted == size and plain and kind in _SENT_AS_THEY_ARE and math.prod(size) <= MAX_PIXELS:
        return _encoded(path.read_bytes(), _SENT_AS_THEY_ARE[kind])
    image = open_image(path)
    if wanted != size:
        image = image.resize(wanted, Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return _encoded(content.getvalue(), "image/png")


def _encoded(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
