"""The interface of all rollout engines, which sample completions for prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from vold.images import Pixels

if TYPE_CHECKING:
    from vold.models.encoder import EncodedPrompt
    from vold.rollout.proof import SyncProof, Weights

FinishReason = Literal["stop", "length"]


class EngineError(RuntimeError):
    """The engine failed: it was killed, is out of reach, or raised an exception. A new engine may do the same work."""


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A tokenized prompt, with the placeholders of its images expanded, and one seed per sample."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    pixels: Pixels | None = None

    @classmethod
    def of(cls, prompt: "EncodedPrompt", seeds: Sequence[int]) -> "RolloutRequest":
        """The request for one completion of ``prompt`` per seed."""
        return cls(prompt.prompt_ids, tuple(seeds), prompt.pixels)


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, including the stop token if there is one.

    logprobs: log-probability of each token under the distribution that it was drawn from. entropies: entropy of that
    distribution in nats; None if they were not requested or the engine cannot measure them.
    """

    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    entropies: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. A temperature of 0 is greedy decoding.

    banned_ids: token ids that are never sampled (image placeholders). entropies: whether engines that hold the whole
    distribution return its entropy.
    """

    max_new_tokens: int
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    banned_ids: tuple[int, ...] = ()
    entropies: bool = False


class RolloutEngine(Protocol):
    """An engine that samples completions.

    live: whether the engine decodes with the trainer's own tensors, so that there is nothing to synchronise. Any other
    engine gets the weights through ``sync`` before it is used. ``generate`` and ``sync`` raise EngineError if the
    engine fails, and ValueError for requests or weights that it can never accept.
    """

    live: bool

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        """The completions in the order of the requests, and of the seeds within a request."""
        ...

    def sync(self, weights: "Weights") -> "SyncProof":
        """Hand over the weights. Raises SyncError if the engine cannot prove that it uses them."""
        ...

    def sleep(self) -> None:
        """Free as much memory as possible until the next ``sync``."""
        ...

    def close(self) -> None:
        """Free everything; the engine cannot be used again."""
        ...
