"""The one interface of everything that turns prompts into sampled completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from vold.images import Pixels

if TYPE_CHECKING:
    from vold.models.encoder import EncodedPrompt
    from vold.rollout.proof import SyncProof, Weights

FinishReason = Literal["stop", "length"]


class EngineError(RuntimeError):
    """The engine broke (killed, out of reach, an exception of its own); a fresh one may do the same work."""


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A tokenised prompt (placeholders of images already expanded) and one seed per wanted sample."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    pixels: Pixels | None = None

    @classmethod
    def of(cls, prompt: "EncodedPrompt", seeds: Sequence[int]) -> "RolloutRequest":
        """Ask ``prompt`` for one completion per seed."""
        return cls(prompt.prompt_ids, tuple(seeds), prompt.pixels)


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, the stop token included when there is one.

    logprobs: log-probability of each token under the distribution it was drawn from; entropies: of that distribution,
    in nats, where they were asked for and the engine knows them.
    """

    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    entropies: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy decoding. ``banned_ids`` can never be drawn (image placeholders).

    entropies: wanted beside the tokens, from engines that hold whole distributions.
    """

    max_new_tokens: int
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    banned_ids: tuple[int, ...] = ()
    entropies: bool = False


class RolloutEngine(Protocol):
    """Completions come back in the order of the requests, and of the seeds within a request.

    ``live``: decodes with the trainer's own tensors, so there is nothing to synchronise. Any other engine is told
    the weights before it is asked, by ``sync``, which raises SyncError where it cannot prove that it uses them;
    between ``sleep`` and the next ``sync`` it holds as little memory as it can. ``generate`` and ``sync`` raise
    EngineError when the engine broke, ValueError for what it will never do.
    """

    live: bool

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]: ...

    def sync(self, weights: "Weights") -> "SyncProof": ...

    def sleep(self) -> None: ...

    def close(self) -> None: ...
