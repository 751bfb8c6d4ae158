"""An engine that is rebuilt when it fails: it gets the weights again, proves them, and repeats the lost batch."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from vold.rollout.base import Completion, EngineError, RolloutEngine, RolloutRequest, Sampling
from vold.rollout.proof import SyncProof, Weights

T = TypeVar("T")


class RestartingEngine:
    """Implements ``RolloutEngine`` with the engines that ``build`` returns, at most ``restarts`` new ones per batch.

    Seeds belong to the requests, so a repeated batch has the completions that the lost one would have had. SyncError is
    never retried, because such an engine works, but with the wrong weights.
    """

    live = False

    def __init__(self, build: Callable[[], RolloutEngine], restarts: int) -> None:
        self.build, self.restarts = build, restarts
        self._engine: RolloutEngine | None = None
        self._weights: Weights | None = None

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        if self._weights is None:
            raise RuntimeError("the rollout engine has no weights; call sync before generate and after every sleep")
        return self._repeated(lambda engine: engine.generate(requests, sampling))

    def sync(self, weights: Weights) -> SyncProof:
        self._weights = None
        proof = self._repeated(lambda engine: engine.sync(weights))
        self._weights = weights
        return proof

    def sleep(self) -> None:
        """Let the engine sleep and forget the weights. An engine that fails to sleep is rebuilt at its next use."""
        self._weights = None
        if self._engine is not None:
            try:
                self._engine.sleep()
            except EngineError:
                self.close()

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with suppress(Exception):  # it may have failed already
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
