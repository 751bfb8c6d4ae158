"""An engine that may break: rebuilt, given the weights again, proven again, and asked the same again."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from vold.rollout.base import Completion, EngineError, RolloutEngine, RolloutRequest, Sampling
from vold.rollout.proof import SyncProof, Weights

T = TypeVar("T")


class RestartingEngine:
    """Implements ``RolloutEngine`` over those that ``build`` makes; a batch may cost ``restarts`` fresh ones.

    Seeds belong to the requests, so a repeated batch draws what the lost one would have drawn. SyncError is never
    retried: such an engine works, with the wrong weights.
    """

    live = False

    def __init__(self, build: Callable[[], RolloutEngine], restarts: int) -> None:
        self.build, self.restarts = build, restarts
        self._engine: RolloutEngine | None = None
        self._weights: Weights | None = None

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        if self._weights is None:
            raise RuntimeError("the rollout engine was told no weights since it slept: an older policy would answer")
        return self._repeated(lambda engine: engine.generate(requests, sampling))

    def sync(self, weights: Weights) -> SyncProof:
        self._weights = None
        proof = self._repeated(lambda engine: engine.sync(weights))
        self._weights = weights
        return proof

    def sleep(self) -> None:
        """Let the engine rest; one that cannot is rebuilt when it is next needed. The weights are let go."""
        self._weights = None
        if self._engine is not None:
            try:
                self._engine.sleep()
            except EngineError:
                self.close()

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(Exception):  # it may be broken already
                engine.close()

    def _repeated(self, work: Callable[[RolloutEngine], T]) -> T:
        for attempt in range(self.restarts + 1):
            try:
                return work(self._running())
            except EngineError:
                self.close()
                if attempt == self.restarts:
                    raise
        raise AssertionError("unreachable")

    def _running(self) -> RolloutEngine:
        if self._engine is None:
            self._engine = self.build()
            if self._weights is not None:
                self._engine.sync(self._weights)
        return self._engine
