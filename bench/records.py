"""Records on the way from a benchmark to a table: Problem, Response, Verdict."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["right", "wrong", "unparsed", "ambiguous", "truncated", "refused", "error"]
STATES: tuple[State, ...] = ("right", "wrong", "unparsed", "ambiguous", "truncated", "refused", "error")
AnswerKind = Literal["choice", "choices", "integer", "float", "list", "free"]

Frame = Any
"""A pandas DataFrame of these records. Its stubs give a selection of rows a union of types, which checks nothing."""


def storable(text: str) -> str:
    """``text`` with replacement characters for lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Problem:
    """One benchmark item.

    ``question`` may hold ``<image k>`` marks (k from 1): image k stands there; an image without a mark
    goes before the question. ``cluster`` groups items that are not independent of each other.
    ``unscorable`` gives the reason why no answer can ever be right, or is empty.
    """

    benchmark: str
    id: str
    question: str
    images: tuple[Path, ...]
    options: tuple[str, ...]
    answer: str
    kind: AnswerKind
    cluster: str
    category: str = ""
    precision: int | None = None
    unscorable: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What a model said to one problem; ``sample`` counts from 0; ``tokens`` is the completion's length.

    prompt_tokens: length of the prompt as the model was fed it; visual_tokens: positions of its images. None where
    that is not known.
    """

    id: str
    sample: int
    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int | None = None
    visual_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a response was judged; ``method`` names the rule that decided."""

    id: str
    sample: int
    state: State
    extracted: str
    normalised: str
    method: str

    @property
    def correct(self) -> bool:
        return self.state == "right"


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
