"""What evaluation needs of an engine, whichever model server stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.prompts import Part


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user's turn and a seed for each wanted sample."""

    parts: Sequence[Part]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One sample. ``tokens`` counts the completion; for ``error`` the text is the reason."""

    text: str
    tokens: int
    finish_reason: Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Settings:
    """temperature 0 is greedy decoding; max_tokens bounds a completion."""

    max_tokens: int
    temperature: float


class Engine(Protocol):
    """Replies come in the order of the prompts, and of the seeds within a prompt.

    A prompt that cannot be asked (an unreadable picture) gets replies with ``error``; the others are answered.
    """

    def answer(self, prompts: Sequence[Prompt], settings: Settings) -> list[list[Reply]]: ...

    def token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The ids that the model reads, for provenance; empty where the engine cannot tell."""
        ...
