"""The one interface of everything that turns prompts into sampled completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Pixels:
    """A prompt's pictures as the image processor left them.

    values: [patches, channels * temporal * patch * patch] float32; grid_thw: [pictures, 3] int64.
    """

    values: "torch.Tensor"
    grid_thw: "torch.Tensor"


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A tokenised prompt (placeholders of pictures already expanded) and one seed per wanted sample."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """Sampled tokens, the stop token included when there is one.

    logprobs: log-probability of each token under the distribution it was drawn from.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy decoding. ``banned_ids`` can never be drawn (picture placeholders)."""

    max_new_tokens: int
    temperature: float = 1.0
    stop_ids: tuple[int, ...] = ()
    banned_ids: tuple[int, ...] = ()


class RolloutEngine(Protocol):
    """Completions come back in the order of the requests, and of the seeds within a request."""

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]: ...
