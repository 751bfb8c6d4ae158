"""A change of what any text is read as must be told by ``vold.answers.VERSION``: stages are known by it."""

import hashlib
import random

import pytest

from vold.answers import VERSION, verify

REFERENCES = (("8", ()), ("0.5", ()), ("B", ("nine", "twelve", "8", "none of these")))
PIECES = (
    "The answer is", "Answer:", "is not", "not", "or", "and", "maybe", "if", "about", "more than",
    "the result", "so", "=", "7+5=2,", "2-3=9.", r"\boxed{", r"\text{", "}", "{", "(", ")", "$", "**", "%",
    ",", ".", "\n", ":", "A", "B", "(C)", "D.", "8", "9", "-8", "8.0", "0.5", ".5", "1/2", r"\frac{1}{2}",
    "eight", "twelve", "I cannot", "<think>", "</think>",
)  # fmt: skip
OUTCOMES = {5: "97cbf708ffda942cd21c1cb3e2d74e662da7c50cf7cb52a2f416cb81e1e76e22"}


def outcomes() -> str:
    """Digest over what 1,500 heaps of pieces are read as, the same each time."""
    source, total = random.Random(417), hashlib.sha256()
    for number in range(1500):
        text = " ".join(source.choices(PIECES, k=source.randint(1, 9)))
        answer, options = REFERENCES[number % len(REFERENCES)]
        total.update(f"{verify(text, answer, options)}\n".encode())
    return total.hexdigest()


@pytest.mark.slow
def test_what_is_read_as_what_changes_with_the_version_alone() -> None:
    assert outcomes() == OUTCOMES[VERSION], "texts are read otherwise now: raise vold.answers.VERSION and record this"
