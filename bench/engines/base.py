"""What evaluation needs of an engine, whichever model server stands behind it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from bench.prompts import PromptPart

Preparer = Callable[[Sequence[PromptPart]], Any]
"""One user's turn as the engine takes it: images decoded and resized, text encoded.

It can be pickled, so that worker processes prepare ahead. Raises ValueError for a turn that can never be asked (an
unreadable image, a prompt that is too long).
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A prepared turn and a seed for each wanted sample; ``place`` comes back with the answer."""

    place: int
    prepared: Any
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One sample. ``tokens`` counts the completion; for ``error`` the text is the reason."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class RequestReplies:
    """Replies to the ask at ``place``, in the order of its seeds: all of them, or some, ``first`` on.

    prompt_tokens: length of the turn as the model was fed it; visual_tokens: positions that its images took of
    these. None where the engine cannot tell.
    """

    place: int
    replies: Sequence[Reply]
    prompt_tokens: int | None = None
    visual_tokens: int | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Decoding:
    """temperature 0 is greedy decoding; max_tokens bounds a completion.

    proven: requests of this kind were answered before, so that further ones may all be refused for their own sake.
    """

    max_tokens: int
    temperature: float
    proven: bool = False


@dataclass(frozen=True, slots=True)
class PromptReading:
    """How the model reads a turn, for provenance.

    text: the rendered prompt, image placeholders not yet expanded. prompt_ids: what the model is fed. grids: patches
    of each image after resizing, (time, height, width). visual_tokens: how many positions each image takes.
    """

    text: str
    prompt_ids: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...] = ()
    visual_tokens: tuple[int, ...] = ()


class Engine(Protocol):
    """``grouped``: a reply may depend, in its last bits, on what is decoded beside it; asks come in fixed groups.

    ``answer`` draws groups as it has room for them and yields answers as they are ready, in any order. What a server
    did not answer however often it was asked is left out: it is missing, not wrong. It raises EngineError when the
    engine broke and what was not answered may be asked again of a fresh one, ConfigurationError where
    everything is refused or filtered (then it has yielded none of that), or a setting alone leaves a prompt no room.
    """

    grouped: bool
    preparer: Preparer

    def answer(self, groups: Iterable[Sequence[Request]], settings: Decoding) -> Iterator[RequestReplies]: ...

    def read(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        """None where the engine cannot tell."""
        ...

    def about(self) -> dict[str, Any]:
        """Name, versions and settings that go into the result; also what was made smaller for want of memory."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Swappable(Protocol):
    """An engine that can go on with other weights of the same form."""

    def swap(self, model: Path) -> bool:
        """Take over the weights at ``model`` and forget what was computed with the old ones.

        True once it is proven that the new ones are in use; after False the engine must be closed.
        """
        ...
