"""The records of an evaluation: problems, responses, predictions and verdicts."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

State = Literal["right", "wrong", "unparsed", "ambiguous", "truncated", "refused", "error"]
STATES: tuple[State, ...] = ("right", "wrong", "unparsed", "ambiguous", "truncated", "refused", "error")
AnswerKind = Literal["choice", "choices", "integer", "float", "list", "free", "text"]

ResponseKey = tuple[str, str, int]
"""(benchmark, id of the problem, sample)."""

Frame = Any
"""A pandas DataFrame of these records. It is not typed: the stubs of pandas give a union for a selection of rows."""


def storable(text: str) -> str:
    """``text`` with replacement characters for lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a benchmark.

    question: may contain the marks ``<image k>`` (k from 1) for the positions of images; an image without a mark goes
    before the question. answer: the reference answer. cluster: groups problems that are not independent of each other.
    kind: what the answer must be; ``text`` is compared character by character. precision: decimals to which a number is
    compared. unscorable: why no answer can be right, or empty.
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
    """What a model said to one problem. ``sample`` counts from 0; ``tokens`` is the length of the completion.

    prompt_tokens: length of the prompt that the model read. visual_tokens: positions of its images. Both are None if
    the engine does not report them.
    """

    benchmark: str
    id: str
    sample: int
    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int | None = None
    visual_tokens: int | None = None

    @property
    def key(self) -> ResponseKey:
        return self.benchmark, self.id, self.sample


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a response was scored; ``method`` names the rule that decided."""

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
    """A row of a prediction file.

    extraction: the answer that a judge or an earlier step extracted from the response; None if the file has none, and
    empty if the extraction found no answer.
    """

    id: str
    sample: int
    response: str
    extraction: str | None = None


class Column(NamedTuple):
    """A field of a record as a column of a table.

    type: ``str``, ``int`` or ``tuple``. optional: whether the value may be None. values: those allowed; empty: any.
    """

    name: str
    type: type
    optional: bool
    values: tuple[str, ...]


@cache
def columns(record: type) -> tuple[Column, ...]:
    """The fields of a record's dataclass as columns, in their order."""
    hints = get_type_hints(record)
    return tuple(_column(field.name, hints[field.name]) for field in fields(record))


def _column(name: str, hint: Any) -> Column:
    if get_origin(hint) is Literal:
        return Column(name, str, False, get_args(hint))
    if get_origin(hint) is UnionType:
        return Column(name, next(part for part in get_args(hint) if part is not NoneType), True, ())
    return Column(name, get_origin(hint) or hint, False, ())
