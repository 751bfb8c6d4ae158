"""Images of problems: one row of square cells, a glyph or a bar in each, with jitter in colour, place and noise."""

from functools import cache

import numpy as np
from PIL import Image, ImageFont

from bench.smallworld.problems import WorldProblem

CELL = 16
GLYPH_WIDTH, GLYPH_HEIGHT = 10, 13
BAR_WIDTH, BAR_STEP = 8, 1.5


@cache
def _glyph(symbol: str) -> np.ndarray:
    """Boolean mask [GLYPH_HEIGHT, GLYPH_WIDTH] of one character of Pillow's built-in bitmap font."""
    font = ImageFont.load_default_imagefont()
    bitmap = font.getmask(symbol)
    mask = np.asarray(bitmap, dtype=np.uint8).reshape(bitmap.size[1], bitmap.size[0])
    canvas = Image.fromarray(mask).resize((GLYPH_WIDTH, GLYPH_HEIGHT), Image.Resampling.NEAREST)
    return np.asarray(canvas) > 0


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ink and paper: dark on light or light on dark."""
    dark, light = rng.integers(0, 80, 3), rng.integers(176, 256, 3)
    return (dark, light) if rng.random() < 0.75 else (light, dark)


def render(problem: WorldProblem, rng: np.random.Generator) -> np.ndarray:
    """The problem as [CELL, CELL * cells, 3] uint8; what stands where is ``problem.symbols``."""
    ink, paper = _colours(rng)
    symbols = problem.symbols
    mask = np.zeros((CELL, CELL * len(symbols)), dtype=bool)
    for index, symbol in enumerate(symbols):
        cell = mask[:, index * CELL : (index + 1) * CELL]
        left = int(rng.integers(2, 5))
        if problem.family == "bars":
            height = 1 + round(int(symbol) * BAR_STEP)
            cell[CELL - height :, left : left + BAR_WIDTH] = True
        else:
            top = int(rng.integers(0, CELL - GLYPH_HEIGHT + 1))
            cell[top : top + GLYPH_HEIGHT, left : left + GLYPH_WIDTH] = _glyph(symbol)
    image = np.where(mask[..., None], ink, paper) + rng.normal(0, 6, (*mask.shape, 1))
    return np.clip(image, 0, 255).astype(np.uint8)
