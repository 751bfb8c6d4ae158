"""Engines that fail are rebuilt, get the weights again and repeat the batch, a limited number of times."""

from collections.abc import Callable, Sequence

import pytest

from vold.rollout.base import Completion, EngineError, RolloutRequest, Sampling
from vold.rollout.proof import SyncError, SyncProof, Weights
from vold.rollout.restart import RestartingEngine

WEIGHTS = Weights({}, ())
NEWER = Weights({}, (), (1,))
REQUEST = RolloutRequest((1, 2), (7, 8))


class Fake:
    """Fails in its first ``breaks`` calls of generate, then answers with the seeds. It records all calls."""

    live = False

    def __init__(self, log: list[object], breaks: bool = False, error: Exception | None = None) -> None:
        self.log, self.breaks, self.error = log, breaks, error
        log.append("start")

    def generate(self, requests: Sequence[RolloutRequest], sampling: Sampling) -> list[list[Completion]]:
        self.log.append("generate")
        if self.breaks:
            raise self.error or EngineError("killed")
        return [[Completion((seed,), (0.0,), "stop") for seed in request.seeds] for request in requests]

    def sync(self, weights: Weights) -> SyncProof:
        self.log.append(weights)
        return SyncProof(1, 0.0)

    def sleep(self) -> None:
        self.log.append("sleep")

    def close(self) -> None:
        self.log.append("close")


def over(log: list[object], broken: Sequence[bool], error: Exception | None = None) -> Callable[[], Fake]:
    engines = iter(broken)
    return lambda: Fake(log, next(engines), error)


def test_nothing_is_started_before_it_is_needed() -> None:
    log: list[object] = []
    engine = RestartingEngine(over(log, [False]), restarts=1)
    engine.sleep()
    engine.close()
    assert log == []


def test_a_failed_engine_is_replaced_and_synchronized_and_repeats_the_batch() -> None:
    log: list[object] = []
    engine = RestartingEngine(over(log, [True, True, False]), restarts=2)
    engine.sync(WEIGHTS)
    engine.sync(NEWER)
    (group,) = engine.generate([REQUEST], Sampling(4))
    assert [completion.completion_ids for completion in group] == [(7,), (8,)]
    again = ["generate", "close", "start", NEWER]
    assert log == ["start", WEIGHTS, NEWER, *again, *again, "generate"]


def test_the_number_of_restarts_is_bounded_and_counted_for_each_batch() -> None:
    log: list[object] = []
    engine = RestartingEngine(over(log, [True, False, True, True]), restarts=1)
    engine.sync(WEIGHTS)
    engine.generate([REQUEST], Sampling(4))
    engine.close()
    with pytest.raises(EngineError, match="killed"):
        engine.generate([REQUEST], Sampling(4))
    assert log.count("start") == 4 and log[-1] == "close"


@pytest.mark.parametrize("error", [ValueError("refused"), SyncError("stale")])
def test_refusals_and_wrong_weights_are_not_retried(error: Exception) -> None:
    log: list[object] = []
    engine = RestartingEngine(over(log, [True], error), restarts=3)
    engine.sync(WEIGHTS)
    with pytest.raises(type(error)):
        engine.generate([REQUEST], Sampling(4))
    assert log == ["start", WEIGHTS, "generate"]


@pytest.mark.parametrize("slept", [True, False])
def test_nothing_is_sampled_before_the_weights_are_synchronized_or_after_sleep(slept: bool) -> None:
    log: list[object] = []
    engine = RestartingEngine(over(log, [False]), restarts=0)
    if slept:
        engine.sync(WEIGHTS)
        engine.sleep()
    with pytest.raises(RuntimeError, match="has no weights"):
        engine.generate([REQUEST], Sampling(4))
    assert "generate" not in log


def test_a_new_engine_with_the_wrong_weights_ends_the_batch() -> None:
    log: list[object] = []

    class Stale(Fake):
        def sync(self, weights: Weights) -> SyncProof:
            raise SyncError("stale")

    engines = iter([Fake(log, True), Stale(log)])
    engine = RestartingEngine(lambda: next(engines), restarts=3)
    engine.sync(WEIGHTS)
    with pytest.raises(SyncError):
        engine.generate([REQUEST], Sampling(4))


def test_an_engine_that_cannot_sleep_is_dropped() -> None:
    log: list[object] = []

    class Restless(Fake):
        def sleep(self) -> None:
            raise EngineError("gone")

    engines = iter([Restless(log), Fake(log)])
    engine = RestartingEngine(lambda: next(engines), restarts=0)
    engine.sync(WEIGHTS)
    engine.sleep()
    engine.sync(NEWER)
    assert log == ["start", "start", WEIGHTS, "close", NEWER]
