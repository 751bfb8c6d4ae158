"""Requests to an engine: which are sent, which are repeated, and how an evaluation ends."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.engines import Decoding, Reply, Request, RequestReplies
from bench.errors import InfrastructureError
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from perf.stub_engine import StubEngine, StubPool
from vold.execution import Execution
from vold.rollout.base import EngineError
from vold.seeding import derive

CONFIG = EvalConfig(samples=3, temperature=1.0, group_size=4, blind=True, engine="builtin")
TABLES = ("verdicts.parquet", "responses.parquet", "summary.json")
Start = Callable[..., Path]


@pytest.fixture
def start(texts: Path, no_model: Path, tmp_path: Path) -> Start:
    """Evaluate with a stub engine in the directory ``name``."""

    def run(name: str, engine: Any, config: EvalConfig = CONFIG, fresh: bool = False, **settings: Any) -> Path:
        execution = Execution.model_validate({"device": "cpu", "evaluation": settings})
        build = engine if callable(engine) else lambda: engine
        evaluate(
            config, model=no_model, data={"mathvision": texts}, run=tmp_path / name, seed=5, execution=execution,
            engines=StubPool(build), fresh=fresh,
        )  # fmt: skip
        return tmp_path / name

    return run


def keep(run: Path, lines: Sequence[int]) -> None:
    """Keep only these lines of a run's log."""
    log = run / "responses.jsonl"
    kept = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(kept[line] for line in lines))


def same_tables(one: Path, two: Path) -> bool:
    return all((one / "out" / name).read_bytes() == (two / "out" / name).read_bytes() for name in TABLES)


def test_a_sample_has_the_seed_of_its_problem_plus_its_number(start: Start) -> None:
    engine = StubEngine()
    start("run", engine)
    first = derive(5, "eval", "mathvision", "0")
    assert engine.seen[0].seeds == (first, first + 1, first + 2)
    assert len({seed for request in engine.seen for seed in request.seeds}) == 30


def test_only_missing_samples_are_requested_again_with_their_own_seeds(start: Start) -> None:
    whole, engine = start("whole", StubEngine()), StubEngine()
    run = start("run", StubEngine())
    keep(run, [line for line in range(30) if line not in (1, 12, 13, 14, 29)])

    start("run", engine)

    seeds = {str(item): derive(5, "eval", "mathvision", str(item)) for item in (0, 4, 9)}
    assert [request.seeds for request in engine.seen] == [
        (seeds["0"] + 1,), (seeds["4"], seeds["4"] + 1, seeds["4"] + 2), (seeds["9"] + 2,),
    ]  # fmt: skip
    assert same_tables(run, whole)


def test_a_grouped_engine_gets_the_whole_group_again_and_only_missing_responses_are_added(start: Start) -> None:
    whole, engine = start("whole", StubEngine(grouped=True)), StubEngine(grouped=True)
    run = start("run", StubEngine(grouped=True))
    keep(run, [line for line in range(30) if line != 13])  # sample 1 of problem 4, in the second group of four

    start("run", engine)

    assert [(request.index, len(request.seeds)) for request in engine.seen] == [(4, 3), (5, 3), (6, 3), (7, 3)]
    assert len((run / "responses.jsonl").read_bytes().splitlines()) == 30
    assert same_tables(run, whole)


def test_a_lone_surrogate_of_an_engine_becomes_a_replacement_character(start: Start) -> None:
    run = start("run", StubEngine(lambda request, seed: Reply("no \udcff", 1, "error")))
    assert set(pd.read_parquet(run / "out" / "responses.parquet")["text"]) == {"no \ufffd"}


class Backwards(StubEngine):
    """Replies after it has drawn everything, in reverse order of requests and samples."""

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        asks = [request for group in groups for request in group]
        for request in reversed(asks):
            for place in reversed(range(len(request.seeds))):
                yield RequestReplies(request.index, [self.reply(request, request.seeds[place])], first=place)


def test_tables_do_not_depend_on_the_order_of_replies(start: Start) -> None:
    run = start("backwards", Backwards())
    assert json.loads((run / "responses.jsonl").read_bytes().splitlines()[0])["sample"] == 2
    assert same_tables(run, start("forwards", StubEngine()))


class Breaking(StubEngine):
    """Breaks after ``answers`` replies."""

    answers = 2

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for number, answer in enumerate(super().answer(groups, decoding)):
            if number == self.answers:
                raise EngineError("it fell over")
            yield answer


class Broken(Breaking):
    answers = 0


def test_a_broken_engine_is_replaced_while_the_new_ones_reply(start: Start) -> None:
    built: list[Breaking] = []

    def build() -> Breaking:
        built.append(Breaking())
        return built[-1]

    run = start("run", build, restarts=1)
    assert len(built) == 5, "two of ten problems each"
    assert same_tables(run, start("whole", StubEngine()))


def test_engines_that_break_without_a_reply_end_the_run_and_a_later_run_resumes(start: Start) -> None:
    built: list[Any] = []

    def build() -> Any:
        built.append(Breaking() if not built else Broken())
        return built[-1]

    with pytest.raises(InfrastructureError, match=r"(?s)it fell over.*2 engines in a row broke; 6 responses are saved"):
        start("run", build, restarts=1)
    assert len(built) == 2
    engine = StubEngine()
    assert same_tables(start("run", engine), start("whole", StubEngine()))
    assert len(engine.seen) == 8


class Forgetful(StubEngine):
    """Never replies to problem 3."""

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        yield from (answer for answer in super().answer(groups, decoding) if answer.index != 3)


def test_missing_responses_prevent_a_result_unless_they_are_accepted(start: Start, tmp_path: Path) -> None:
    engine = Forgetful()
    with pytest.raises(InfrastructureError, match="no answer to 3 of 30 requests; 27 responses are saved"):
        start("run", engine)
    assert [request.index for request in engine.seen].count(3) == 2, "it was asked once more"
    assert not (tmp_path / "run/out").exists()

    run = start("run", Forgetful(), accept_missing=True)
    part = json.loads((run / "out/summary.json").read_text())["benchmarks"]["mathvision"]
    assert (part["n"], part["expected"]) == (27, 30)
    assert "3" not in set(pd.read_parquet(run / "out/verdicts.parquet")["id"])


def test_a_fresh_start_requests_everything_and_keeps_the_old_log(start: Start) -> None:
    run = start("run", StubEngine())
    before = (run / "responses.jsonl").read_bytes()
    engine = StubEngine()
    start("run", engine, config=CONFIG.model_copy(update={"samples": 2}), fresh=True)
    assert (len(engine.seen), len(engine.seen[0].seeds)) == (10, 2)
    assert (run / "responses.jsonl.1").read_bytes() == before


class Shrinking(StubEngine):
    """Reduces its batch, like an engine that runs out of memory."""

    def about(self) -> dict[str, Any]:
        return {"name": "stub", "batch": 4 if len(self.seen) > 5 else 8}


def test_every_state_of_the_engine_is_in_the_result(start: Start) -> None:
    run = start("run", Shrinking())
    engine = json.loads((run / "out/summary.json").read_text())["engine"]
    assert engine == {"name": "stub", "batch": 4, "earlier": [{"name": "stub", "batch": 8}]}


@pytest.mark.slow
def test_a_hanging_engine_ends_the_process_and_a_later_run_resumes(start: Start, texts: Path, no_model: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.bench.evaluation.test_requests import *\n"
        "class Hanging(StubEngine):\n"
        "    def answer(self, groups, decoding):\n"
        "        for number, answer in enumerate(super().answer(groups, decoding)):\n"
        "            yield answer\n"
        "            if number == 3: time.sleep(60)\n"
        "execution = Execution.model_validate({'evaluation': {'hang_seconds': 0.5}})\n"
        f"evaluate(CONFIG, model=Path({str(no_model)!r}), data={{'mathvision': Path({str(texts)!r})}}, seed=5,\n"
        f"    run=Path({str(texts.parent / 'hung')!r}), execution=execution, engines=StubPool(Hanging))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, cwd=Path(__file__).parents[3]
    )
    assert (done.returncode, "run again to continue" in done.stderr) == (6, True)
    engine = StubEngine()
    run = start("hung", engine)
    assert len(engine.seen) == 6
    assert same_tables(run, start("whole", StubEngine()))


@pytest.mark.slow
def test_evaluation_does_not_import_torch(texts: Path, no_model: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bench.evaluation.config import EvalConfig; from bench.evaluation.run import evaluate\n"
        "from perf.stub_engine import StubEngine, StubPool; from vold.execution import Execution\n"
        f"evaluate(EvalConfig(blind=True), model=Path({str(no_model)!r}), seed=5, execution=Execution(),\n"
        f"    data={{'mathvision': Path({str(texts)!r})}}, run=Path({str(tmp_path / 'run')!r}),\n"
        "    engines=StubPool(StubEngine))\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3])
    assert done.returncode == 0
