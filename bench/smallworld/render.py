"""Images of problems: a row of square cells with a glyph or a bar each, jittered in colour, position and noise."""

from functools import cache

import numpy as np
from PIL import Image, ImageFont

from bench.smallworld.problems import WorldProblem

CELL = 16
GLYPH_WIDTH, GLYPH_HEIGHT = 10, 13
BAR_WIDTH, BAR_STEP = 8, 1.5


@cache
def _glyph(symbol: str) -> np.ndarray:
    """The mask of one character of Pillow's built-in bitmap font, boolean [GLYPH_HEIGHT, GLYPH_WIDTH]."""
    font = ImageFont.load_default_imagefont()
    bitmap = font.getmask(symbol)
    mask = np.asarray(bitmap, dtype=np.uint8).reshape(bitmap.size[1], bitmap.size[0])
    canvas = Image.fromarray(mask).resize((GLYPH_WIDTH, GLYPH_HEIGHT), Image.Resampling.NEAREST)
    return np.asarray(canvas) > 0


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The colours of ink and paper: dark on light, or light on dark."""
    dark, light = rng.integers(0, 80, 3), rng.integers(176, 256, 3)
    return (dark, light) if rng.random() < 0.75 else (light, dark)


def render_problem(problem: WorldProblem, rng: np.random.Generator) -> np.ndarray:
    """The image of a problem, uint8 [CELL, CELL * cells, 3], with one cell per symbol of ``problem.symbols``."""
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
