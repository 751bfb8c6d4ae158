r"""The formats of training data, all of which become a ``DataRecord``.

``vold``
    ``{"id", "text", "answer", "options"?, "images"?, "caption"?}``. A trace has ``completion`` and ``correct``?
    in place of ``answer``. ``vold.data.prompts.write_jsonl`` writes this format.
``mixture_of_thoughts``
    ``{"messages": [{"role": "user", "content"}, {"role": "assistant", "content"}], ...}``: a problem and a model's
    response to it with its thoughts. The reference answer is the last ``\boxed{}`` of the response, if it has one.
``orz``
    ``[{"from": "human", "value"}, {"from": "assistant", "ground_truth": {"value"}}]``, the rows of Open-Reasoner-Zero.
    Tools that convert them to tables turn the list into an object with the keys "0" and "1".
``problem_answer``
    ``{"problem", "answer", "images"?}``, as in copies of Geometry3K for reinforcement learning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class MalformedRow(ValueError):
    """A row does not fit its format. The message says why."""


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The content of a row in any format.

    id: empty if the format has none. completion: None if the row is not a trace. images: paths, or objects with
    ``bytes`` or ``path`` as in tables of images.
    """

    text: str
    id: str = ""
    answer: str = ""
    options: tuple[str, ...] = ()
    images: tuple[object, ...] = ()
    caption: str = ""
    completion: str | None = None
    correct: bool | None = None


def _text(row: object, name: str, *, optional: bool = False) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if optional and value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise MalformedRow(f"{name!r} must be a text, found {type(value).__name__ if value is not None else 'nothing'}")
    return str(value)


def _list(row: Mapping[str, object], name: str) -> tuple[object, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise MalformedRow(f"{name!r} must be a list, found {type(value).__name__}")
    return tuple(value)


def _vold(row: Mapping[str, object]) -> DataRecord:
    correct = row.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise MalformedRow(f"'correct' must be true, false or null, found {correct!r}")
    return DataRecord(
        id=_text(row, "id"),
        text=_text(row, "text"),
        # A prompt has null if its answer is not known. A trace may lack the field.
        answer=_text(row, "answer", optional="answer" in row or "completion" in row),
        options=tuple(map(str, _list(row, "options"))),
        images=_list(row, "images"),
        caption=_text(row, "caption", optional=True),
        completion=_text(row, "completion") if "completion" in row else None,
        correct=correct,
    )


def _mixture_of_thoughts(row: Mapping[str, object]) -> DataRecord:
    from vold.answers.extract import claims

    messages = _list(row, "messages")
    roles = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    if roles != ["user", "assistant"]:
        raise MalformedRow(f"'messages' must be one turn of the user and one of the assistant, found {roles}")
    completion = _text(messages[1], "content")
    boxed = next((claim.text for claim in claims(completion) if claim.method == "boxed"), "")
    return DataRecord(text=_text(messages[0], "content"), answer=boxed, completion=completion)


def _orz(row: Any) -> DataRecord:
    turns = [row["0"], row["1"]] if isinstance(row, Mapping) else list(row)
    senders = [turn.get("from") if isinstance(turn, Mapping) else None for turn in turns]
    if senders != ["human", "assistant"]:
        raise MalformedRow(f"a row must be a turn of the human and one of the assistant, found {senders}")
    return DataRecord(text=_text(turns[0], "value"), answer=_text(turns[1].get("ground_truth"), "value"))


def _problem_answer(row: Mapping[str, object]) -> DataRecord:
    return DataRecord(
        text=_text(row, "problem"),
        id=_text(row, "id", optional=True),
        answer=_text(row, "answer"),
        images=_list(row, "images"),
        caption=_text(row, "caption", optional=True),
    )


Reader = Callable[[Any], DataRecord]
_FORMATS: dict[str, tuple[Sequence[str], Reader]] = {
    "vold": (("text",), _vold),
    "mixture_of_thoughts": (("messages",), _mixture_of_thoughts),
    "orz": (("0", "1"), _orz),
    "problem_answer": (("problem", "answer"), _problem_answer),
}
FORMATS = tuple(_FORMATS)


def reader(name: str) -> Reader:
    """The function that reads rows of a format. Raises ValueError naming the known formats."""
    if name not in _FORMATS:
        raise ValueError(f"unknown data format {name!r}; known formats: {', '.join(FORMATS)}")
    fields, read_row = _FORMATS[name]

    def checked(row: object) -> DataRecord:
        if not _fits(row, name):
            raise MalformedRow(f"not a row of format {name}, which has the fields {', '.join(fields)}")
        return read_row(row)

    return checked


def recognise(row: object) -> str:
    """The format whose fields the row has. Raises MalformedRow naming the known formats."""
    match = next((name for name in FORMATS if _fits(row, name)), None)
    if match is None:
        formats = "; ".join(f"{name}: {', '.join(fields)}" for name, (fields, _) in _FORMATS.items())
        raise MalformedRow(f"fits no known format ({formats})")
    return match


def _fits(row: object, name: str) -> bool:
    if isinstance(row, list):
        return name == "orz"
    return isinstance(row, Mapping) and all(field in row for field in _FORMATS[name][0])
