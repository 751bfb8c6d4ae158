"""An engine that computes nothing, for measuring and testing the code around engines."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.engines import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.factory import EngineChoice, EnginePool
from bench.prompts import PromptPart
from vold.execution import Execution


def seeded_answer(request: Request, seed: int) -> Reply:
    """A response of about two kilobytes that depends on the seed alone and ends in a boxed number."""
    text = f"Let us see, step {seed}. " * 80 + f"The answer is \\boxed{{{seed % 7}}}."
    return Reply(text, len(text) // 4, "stop")


def unchanged_parts(parts: Sequence[PromptPart]) -> Sequence[PromptPart]:
    """The parts, without preparation."""
    return parts


class StubEngine:
    """Answers each request with ``reply``, after ``seconds`` per group. ``seen`` has the requests in their order."""

    def __init__(
        self, reply: Callable[[Request, int], Reply] = seeded_answer, seconds: float = 0.0, grouped: bool = False
    ) -> None:
        self.reply, self.seconds, self.grouped = reply, seconds, grouped
        self.preparer: Callable[[Sequence[PromptPart]], Any] = unchanged_parts
        self.seen: list[Request] = []

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for group in groups:
            time.sleep(self.seconds)
            for request in group:
                self.seen.append(Request(request.index, None, request.seeds))
                yield RequestReplies(request.index, [self.reply(request, seed) for seed in request.seeds])

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return None

    def about(self) -> dict[str, Any]:
        return {"name": "stub"}

    def close(self) -> None:
        pass


class StubPool(EnginePool):
    """A pool of the engine that ``build`` returns."""

    def __init__(self, build: Callable[[], Any]) -> None:
        super().__init__()
        self.build = build

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Any:
        if self._engine is None:
            self._engine = self.build()
        return self._engine
