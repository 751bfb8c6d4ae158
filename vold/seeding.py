"""Named random streams: every draw is a function of (seed, name), never of what ran before.

Because a stream is addressed and not advanced, a resumed run draws what the uninterrupted run drew.
"""

import hashlib

import numpy as np

Name = str | int


def derive(seed: int, *names: Name) -> int:
    """A 63-bit seed for the stream ``names`` under ``seed``; stable over platforms and versions."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big") >> 1


def generator(seed: int, *names: Name) -> np.random.Generator:
    """A NumPy generator positioned at the start of the stream ``names``."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *names)))
