"""The interface between evaluation and a model: what every engine must guarantee.

Evaluation prepares user turns ahead of time, hands them over as requests and takes the replies as they come. Every
engine guarantees the following, whether it computes in this process or sends the requests to a server:

- As far as the engine controls it, a reply depends only on the turn, its seed and ``Decoding``. The replies of a
  ``grouped`` engine may also depend, in the last bits, on the other requests of a group. Evaluation therefore always
  sends it the same groups.
- Replies come in any order, but the replies to one request come in the order of its seeds.
- A turn that can never be answered gets replies with the finish reason ``error``. It does not stop the run.
- A request that a server did not answer is left out. It is missing, not wrong, and can be sent again.
- A setting that makes every request fail stops the run with ConfigurationError before any of these failures are
  yielded.
- An engine that broke raises EngineError. What it did not answer can be sent to a new engine.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from bench.prompts import PromptPart

Preparer = Callable[[Sequence[PromptPart]], object]
"""Turns the parts of a user turn into the engine's input: images decoded and resized, text encoded.

A preparer can be pickled, so that worker processes can prepare turns ahead of time. It raises ValueError for a turn
that can never be answered, because an image is unreadable or the prompt is too long.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A prepared turn with a seed for each sample. ``index`` identifies the request and returns with its replies."""

    index: int
    prepared: Any  # every engine has its own kind of turn
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One sample. ``tokens`` is the length of the completion. For ``error``, the text is the reason."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class RequestReplies:
    """Replies to the request with this ``index``, in the order of its seeds. They start at seed number ``first``.

    prompt_tokens: length of the turn as the model reads it. visual_tokens: how many of these positions are images.
    Both are None if the engine cannot know them.
    """

    index: int
    replies: Sequence[Reply]
    prompt_tokens: int | None = None
    visual_tokens: int | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Decoding:
    """How completions are sampled. Temperature 0 means greedy decoding, and max_tokens bounds a completion.

    proven: requests with these settings were answered before. Then a run of refusals is the fault of the requests and
    not of a setting.
    """

    max_tokens: int
    temperature: float
    proven: bool = False


@dataclass(frozen=True, slots=True)
class PromptReading:
    """How the model reads a turn, recorded for provenance.

    text: the rendered prompt, before image placeholders are expanded. prompt_ids: the model's input. grids: patches
    of each image after resizing, as (time, height, width). visual_tokens: number of positions that each image takes.
    """

    text: str
    prompt_ids: tuple[int, ...]
    grids: tuple[tuple[int, int, int], ...] = ()
    visual_tokens: tuple[int, ...] = ()


class Engine(Protocol):
    """A model that answers requests, with the guarantees that this module describes.

    grouped: whether a reply may depend on the other requests of its group.
    """

    @property
    def grouped(self) -> bool: ...

    @property
    def preparer(self) -> Preparer: ...

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        """Draw groups as there is room for them and yield replies as they are ready.

        Raises EngineError if the engine broke. Raises ConfigurationError if every request is refused or filtered, or if
        a setting leaves a prompt no room that the model itself would have.
        """
        ...

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        """How the model reads a turn, or None if the engine cannot know."""
        ...

    def about(self) -> dict[str, Any]:
        """Name, versions and settings for the record of a result, including limits lowered for lack of memory."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Swappable(Protocol):
    """An engine that can continue with other weights of the same form."""

    def swap(self, model: Path) -> bool:
        """Load the weights at ``model`` and forget everything computed with the old ones.

        Returns True once the new weights are proven to be in use. After False the engine must be closed.
        """
        ...
