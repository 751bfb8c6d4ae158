"""What the published procedures share: a prediction goes in, a verdict with the deciding rule comes out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.records import Prediction, Problem

OfficialOutcome = Literal["right", "wrong", "unparsed"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """``extracted`` is what was compared; ``method`` names the rule, ``guessed`` where a letter was drawn."""

    outcome: OfficialOutcome
    extracted: str
    method: str

    @classmethod
    def of(cls, correct: bool, extracted: str, method: str) -> "Ruling":
        return cls("right" if correct else "wrong", extracted, method)


Procedure = Callable[[Problem, Prediction], Ruling]
