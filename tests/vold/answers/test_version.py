"""Any change of how a text is read must raise ``vold.answers.VERSION``, which is part of stage identities."""

import hashlib
import random
from dataclasses import astuple

import pytest

from vold.answers import VERSION, verify

REFERENCES = (("8", ()), ("0.5", ()), ("B", ("nine", "twelve", "8", "none of these")))
PIECES = (
    "The answer is", "Answer:", "is not", "not", "or", "and", "maybe", "if", "about", "more than",
    "the result", "so", "=", "7+5=2,", "2-3=9.", r"\boxed{", r"\text{", "}", "{", "(", ")", "$", "**", "%",
    ",", ".", "\n", ":", "A", "B", "(C)", "D.", "8", "9", "-8", "8.0", "0.5", ".5", "1/2", r"\frac{1}{2}",
    "eight", "twelve", "I cannot", "<think>", "</think>",
)  # fmt: skip
OUTCOMES = {5: "dacf8dd4a2fff6886be9279562441ee7e9dcd868bdf84587f9c1488e8754f964"}


def outcomes() -> str:
    """Digest over how 1,500 random texts are read; they are the same each time."""
    source, total = random.Random(417), hashlib.sha256()
    for number in range(1500):
        text = " ".join(source.choices(PIECES, k=source.randint(1, 9)))
        answer, options = REFERENCES[number % len(REFERENCES)]
        total.update(f"{astuple(verify(text, answer, options))}\n".encode())
    return total.hexdigest()


@pytest.mark.slow
def test_texts_are_read_differently_only_with_a_new_version() -> None:
    assert outcomes() == OUTCOMES[VERSION], "texts are read differently now: raise vold.answers.VERSION and record this"
