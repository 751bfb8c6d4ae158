"""An engine that computes nothing, for measuring and testing what stands around engines."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.engines import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.factory import EngineChoice, EnginePool
from bench.prompts import PromptPart
from vold.config import Execution


def say_answer(ask: Request, seed: int) -> Reply:
    """A text of about two kilobytes, a function of the seed alone, that declares a number."""
    text = f"Let us see, step {seed}. " * 80 + f"The answer is \\boxed{{{seed % 7}}}."
    return Reply(text, len(text) // 4, "stop")


def as_they_are(parts: Sequence[PromptPart]) -> Sequence[PromptPart]:
    """Prepares nothing."""
    return parts


class StubEngine:
    """Answers each ask with ``reply``, after ``seconds`` for its group; ``seen`` are the asks in their order."""

    def __init__(
        self, reply: Callable[[Request, int], Reply] = say_answer, seconds: float = 0.0, grouped: bool = False
    ) -> None:
        self.reply, self.seconds, self.grouped = reply, seconds, grouped
        self.preparer: Callable[[Sequence[PromptPart]], Any] = as_they_are
        self.seen: list[Request] = []

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for group in groups:
            time.sleep(self.seconds)
            for ask in group:
                self.seen.append(Request(ask.index, None, ask.seeds))
                yield RequestReplies(ask.index, [self.reply(ask, seed) for seed in ask.seeds])

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return None

    def about(self) -> dict[str, Any]:
        return {"name": "stub"}

    def close(self) -> None:
        pass


class StubPool(EnginePool):
    """Gives out the engines that ``build`` makes."""

    def __init__(self, build: Callable[[], Any]) -> None:
        super().__init__()
        self.build = build

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Any:
        if self._engine is None:
            self._engine = self.build()
        return self._engine
