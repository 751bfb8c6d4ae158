"""The builtin engine of evaluations: less memory than it wants, and other weights in its place."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.engines import Decoding, Request
from bench.engines.builtin import Builtin
from bench.engines.factory import EnginePool
from bench.errors import ErrorClass, classify
from bench.evaluation.config import EvalConfig
from bench.smallworld import checkpoint_path
from tests.helpers.engine_requests import pooled
from vold.execution import Execution
from vold.rollout.builtin import BuiltinEngine

EXECUTION = Execution(device="cpu", threads=1, rollout_batch=8)
CONFIG = EvalConfig(engine="builtin")
SETTINGS = Decoding(max_tokens=6, temperature=1.0)


def asks(engine: Any) -> list[Request]:
    texts = ["[7+5]solve", "[1+2-3]solve", "a", "bb"]
    parts = [[{"type": "text", "text": text}] for text in texts]
    return [Request(place, engine.preparer(part), (place, place + 1)) for place, part in enumerate(parts)]


def texts(engine: Any) -> dict[tuple[int, int], str]:
    return {
        (answer.index, answer.first + number): reply.text
        for answer in engine.answer([asks(engine)], SETTINGS)
        for number, reply in enumerate(answer.replies)
    }


@pytest.fixture
def engine() -> Builtin:
    return Builtin(checkpoint_path("student_a"), EXECUTION, None)


def short_of_memory(monkeypatch: pytest.MonkeyPatch, room: int, error: Exception) -> list[int]:
    """Decoding more than ``room`` sequences at once fails; returns the sizes that were tried."""
    decode, tried = BuiltinEngine._decode, []

    def limited(self: BuiltinEngine, requests: Any, slots: Sequence[Any], *rest: Any) -> Any:
        tried.append(len(slots))
        if len(slots) > room:
            raise error
        return decode(self, requests, slots, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BuiltinEngine, "_decode", limited)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)  # fmt: skip
def test_out_of_memory_halves_the_batch_repeats_the_group_and_is_declared(
    error: Exception, engine: Builtin, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = texts(engine)
    assert engine.about()["batch"] == 8
    tried = short_of_memory(monkeypatch, 2, error)
    assert texts(engine) == whole, "each sample has a seed of its own"
    assert (tried, engine.about()["batch"]) == ([8, 4, 2, 2, 2, 2], 2)


def test_a_batch_of_one_that_does_not_fit_ends_the_run(engine: Builtin, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 0, MemoryError())
    with pytest.raises(MemoryError) as caught:
        texts(engine)
    assert classify(caught.value) is ErrorClass.OUT_OF_MEMORY


def test_another_error_is_not_taken_for_a_lack_of_memory(engine: Builtin, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = short_of_memory(monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        texts(engine)
    assert tried == [8]


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A checkpoint of the same form with other weights."""
    path = tmp_path / "other"
    shutil.copytree(checkpoint_path("student_a"), path)
    (path / "recipe.json").write_text("{}")
    tensors = load_file(path / "model.safetensors")
    save_file({name: tensor.flip(0) * 1.5 for name, tensor in tensors.items()}, path / "model.safetensors")
    return path


@pytest.fixture
def pool() -> Iterator[EnginePool]:
    with EnginePool() as entered:
        yield entered


def test_a_checkpoint_of_the_same_form_takes_the_place_of_the_last_in_its_engine(pool: EnginePool, other: Path) -> None:
    first = pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION)
    before = texts(first)
    second = pooled(pool, CONFIG, other, EXECUTION)
    assert second is first
    assert texts(second) == texts(Builtin(other, EXECUTION, None)) != before
    third = pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION)
    assert third is first and texts(third) == before


def test_weights_written_over_those_in_use_are_taken_over(pool: EnginePool, other: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    shutil.copytree(checkpoint_path("student_a"), place)
    first = pooled(pool, CONFIG, place, EXECUTION)
    before = texts(first)
    shutil.copy(other / "model.safetensors", place / "model.safetensors")
    second = pooled(pool, CONFIG, place, EXECUTION)
    assert second is first
    assert texts(second) == texts(Builtin(other, EXECUTION, None)) != before
    third = pooled(pool, CONFIG, place, EXECUTION)
    assert third is first and texts(third) == texts(Builtin(other, EXECUTION, None))


@pytest.mark.parametrize("change", ["template", "config", "batch"])
def test_anything_but_weights_of_the_same_form_gets_an_engine_of_its_own(
    change: str, pool: EnginePool, other: Path
) -> None:
    first = pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION)
    execution = EXECUTION
    if change == "template":
        (other / "chat_template.jinja").write_text((other / "chat_template.jinja").read_text() + " ")
    if change == "config":
        (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    if change == "batch":
        execution = Execution(device="cpu", threads=1, rollout_batch=4)
    assert pooled(pool, CONFIG, other, execution) is not first


def test_weights_that_were_not_taken_over_are_noticed(
    pool: EnginePool, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION)
    assert isinstance(first, Builtin)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, other: self)
    assert not first.swap(other)
