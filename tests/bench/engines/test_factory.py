"""The pool of engines: what follows an engine that broke."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.engines import Decoding, Request, RequestReplies, factory
from bench.errors import ErrorClass, InfrastructureError, classify
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.smallworld import checkpoint_path
from perf.stub_engine import StubEngine
from vold.execution import Execution
from vold.rollout.base import EngineError

MEMORY = "vLLM failed while generating: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"


class Tight(StubEngine):
    """Decoding more than ``room`` at once fails with ``reason``, after ``before`` answers."""

    room, before, reason = 2, 1, MEMORY

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def about(self) -> dict[str, Any]:
        return {"name": "vllm", "batch": self.batch}

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for number, answer in enumerate(super().answer(groups, decoding)):
            if self.batch > self.room and number == self.before:
                raise EngineError(self.reason)
            yield answer


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches of the engines that were built."""
    batches: list[int] = []

    def build(config: Any, model: Path, execution: Execution) -> Tight:
        batches.append(execution.rollout_batch)
        return Tight(execution.rollout_batch)

    monkeypatch.setattr(factory, "build", build)
    return batches


def run(texts: Path, name: str, pool: factory.EnginePool | None = None) -> dict[str, Any]:
    out = texts.parent / name
    evaluate(
        EvalConfig(engine="vllm", blind=True), model=checkpoint_path("student_a"), data={"mathvision": texts}, run=out,
        seed=0, execution=Execution(rollout_batch=8), engines=pool,
    )  # fmt: skip
    return json.loads((out / "out/summary.json").read_text())["engine"]


def test_after_one_that_ran_out_of_memory_the_next_decodes_half_as_much_which_is_declared(
    texts: Path, built: list[int]
) -> None:
    with factory.EnginePool() as pool:
        assert run(texts, "first", pool) == {
            "name": "vllm", "batch": 2, "earlier": [{"name": "vllm", "batch": 8}, {"name": "vllm", "batch": 4}],
        }  # fmt: skip
        assert run(texts, "second", pool) == {"name": "vllm", "batch": 2}, "memory is the machine's, not a model's"
    assert built == [8, 4, 2]


def test_memory_that_runs_out_whatever_the_batch_ends_the_run_as_that(
    texts: Path, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tight, "room", 0)
    monkeypatch.setattr(Tight, "before", 0)
    with pytest.raises(Exception, match="CUDA out of memory") as caught:
        run(texts, "run")
    assert classify(caught.value) is ErrorClass.OUT_OF_MEMORY
    assert built == [8, 4, 2]


@pytest.mark.parametrize(("reason", "batches"), [(MEMORY, [8, 2]), ("the device fell over", [8, 4])])
def test_none_goes_back_up_to_a_batch_that_the_one_before_had_come_down_from(
    texts: Path, built: list[int], monkeypatch: pytest.MonkeyPatch, reason: str, batches: list[int]
) -> None:
    """As an engine of servers does, which replaces its own before it gives up."""
    monkeypatch.setattr(Tight, "reason", reason)
    monkeypatch.setattr(Tight, "room", 4)
    monkeypatch.setattr(Tight, "about", lambda self: {"name": "vllm", "batch": min(self.batch, 4)})
    run(texts, "run")
    assert built == batches


def test_one_that_broke_for_another_reason_is_followed_by_its_like(
    texts: Path, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tight, "reason", "the device fell over")
    monkeypatch.setattr(Tight, "before", 0)
    with pytest.raises(InfrastructureError, match="the device fell over"):
        run(texts, "run")
    assert built == [8, 8, 8]
