"""Named random streams: every draw is a function of seed and name, and not of earlier draws.

So a resumed run draws the same numbers as an uninterrupted one.
"""

import hashlib

import numpy as np

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """A 63-bit seed for the stream ``names`` of ``seed``. It is the same on all platforms and versions."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") >> 1


def generator(seed: int, *names: Name) -> np.random.Generator:
    """A NumPy generator at the start of the stream ``names`` of ``seed``."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *names)))
