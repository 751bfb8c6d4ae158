"""Images for servers: resized if limits are set and sent as data URLs. Works without torch."""

import base64
import io
import math
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vold.images import MAX_PIXELS, open_image

# Formats that every server reads. Other formats are converted to PNG.
_UNCHANGED_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_MAX_RATIO = 200
_ORIENTATION = 0x0112


def fitting_size(width: int, height: int, factor: int, limits: tuple[int, int]) -> tuple[int, int]:
    """The size to which Qwen's image processors resize (smart_resize in qwen-vl-utils): (width, height) in pixels.

    Both are multiples of ``factor`` (patch size times merge size). Their product is within ``limits`` (min, max), and
    their ratio is kept as far as possible. Raises ValueError for a ratio above 200.
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
    """The image as a data URL: the bytes of the file if size and colours stay the same, and a PNG otherwise.

    Like ``open_image``, this drops transparency and ignores an orientation in the metadata. Servers would blend the
    first and rotate the image by the second. Raises ValueError for an unreadable image.
    """
    try:
        with Image.open(path) as header:
            size, file_format, plain = header.size, header.format or "", header.mode in ("RGB", "L")
            plain = plain and "transparency" not in header.info and header.getexif().get(_ORIENTATION, 1) == 1
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        open_image(path)  # raises ValueError with the reason
        raise
    target = size
    if limits is not None:
        try:
            target = fitting_size(*size, factor, limits)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if target == size and plain and file_format in _UNCHANGED_FORMATS and math.prod(size) <= MAX_PIXELS:
        return _encoded(path.read_bytes(), _UNCHANGED_FORMATS[file_format])
    image = open_image(path)
    if target != size:
        image = image.resize(target, Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=1)
    return _encoded(content.getvalue(), "image/png")


def _encoded(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
