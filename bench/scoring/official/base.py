"""The interface of the published procedures: from a prediction to an outcome and the rule that decided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.records import Prediction, Problem

OfficialOutcome = Literal["right", "wrong", "unparsed"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """The outcome, the compared text, and the rule that decided (``guessed`` if a letter was drawn)."""

    outcome: OfficialOutcome
    extracted: str
    method: str

    @classmethod
    def from_comparison(cls, correct: bool, extracted: str, method: str) -> "Ruling":
        return cls("right" if correct else "wrong", extracted, method)


Procedure = Callable[[Problem, Prediction], Ruling]
