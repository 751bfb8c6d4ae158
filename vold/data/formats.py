r"""Schemas of training data, each turned into one kind of record.

``vold``
    ``{"id", "text", "answer", "options"?, "images"?, "caption"?}``; a trace has ``completion`` and ``correct``?
    in place of ``answer``. What ``vold.data.prompts.write_jsonl`` writes.
``mixture_of_thoughts``
    ``{"messages": [{"role": "user", "content"}, {"role": "assistant", "content"}], ...}``: a problem and one model's
    answer to it, with its thoughts. The gold is the answer's last ``\boxed{}``; without one there is none.
``orz``
    ``[{"from": "human", "value"}, {"from": "assistant", "ground_truth": {"value"}}]``, the rows of Open-Reasoner-Zero;
    tools that make tables of them turn the list into an object with the keys "0" and "1".
``problem_answer``
    ``{"problem", "answer", "images"?}``, as in copies of Geometry3K for reinforcement learning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class MalformedRow(ValueError):
    """A row that does not fit its schema; the text says why."""


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What a row holds. ``id`` is empty where the schema has none; ``completion`` is None where it is no trace.

    ``images`` are paths, or objects with ``bytes`` or ``path`` as tables of images hold them.
    """

    text: str
    id: str = ""
    answer: str = ""
    options: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()
    caption: str = ""
    completion: str | None = None
    correct: bool | None = None


def _text(row: Any, name: str, *, optional: bool = False) -> str:
    value = row.get(name) if isinstance(row, Mapping) else None
    if optional and value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise MalformedRow(f"{name!r} must be a text, found {type(value).__name__ if value is not None else 'nothing'}")
    return str(value)


def _list(row: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    value = row.get(name)
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise MalformedRow(f"{name!r} must be a list, found {type(value).__name__}")
    return tuple(value)


def _vold(row: Mapping[str, Any]) -> DataRecord:
    correct = row.get("correct")
    if correct is not None and not isinstance(correct, bool):
        raise MalformedRow(f"'correct' must be true, false or null, found {correct!r}")
    return DataRecord(
        id=_text(row, "id"),
        text=_text(row, "text"),
        # A prompt says null where no answer is known; a trace need not speak of it.
        answer=_text(row, "answer", optional="answer" in row or "completion" in row),
        options=tuple(map(str, _list(row, "options"))),
        images=_list(row, "images"),
        caption=_text(row, "caption", optional=True),
        completion=_text(row, "completion") if "completion" in row else None,
        correct=correct,
    )


def _mixture_of_thoughts(row: Mapping[str, Any]) -> DataRecord:
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


def _problem_answer(row: Mapping[str, Any]) -> DataRecord:
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
    """The reader of a schema; raises ValueError naming the known ones."""
    if name not in _FORMATS:
        raise ValueError(f"no data format {name!r}; known: {', '.join(FORMATS)}")
    fields, read = _FORMATS[name]

    def checked(row: Any) -> DataRecord:
        if not _fits(row, name):
            raise MalformedRow(f"no row of format {name}, which has the fields {', '.join(fields)}")
        return read(row)

    return checked


def recognise(row: Any) -> str:
    """The schema whose fields the row has; raises MalformedRow naming the known ones."""
    found = next((name for name in FORMATS if _fits(row, name)), None)
    if found is None:
        known = "; ".join(f"{name}: {', '.join(fields)}" for name, (fields, _) in _FORMATS.items())
        raise MalformedRow(f"fits no known format ({known})")
    return found


def _fits(row: Any, name: str) -> bool:
    if isinstance(row, list):
        return name == "orz"
    return isinstance(row, Mapping) and all(field in row for field in _FORMATS[name][0])
