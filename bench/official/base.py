"""What the published procedures share: a prediction goes in, a verdict with the deciding rule comes out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.records import Problem

Outcome = Literal["right", "wrong", "unparsed"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of a prediction file.

    ``extraction`` is the answer that a judge or an earlier step took out of the response, None where none is stored:
    an empty text is a stored extraction that found nothing.
    """

    id: str
    sample: int
    response: str
    extraction: str | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """``extracted`` is what was compared; ``method`` names the rule, ``guessed`` where a letter was drawn."""

    outcome: Outcome
    extracted: str
    method: str

    @classmethod
    def of(cls, correct: bool, extracted: str, method: str) -> "Ruling":
        return cls("right" if correct else "wrong", extracted, method)


Procedure = Callable[[Problem, Prediction], Ruling]
