"""The engine that a configuration names, and what is refused."""

import pytest
import torch

from vold.config import RLConfig
from vold.execution import Execution, VLLMExecution
from vold.models import Student
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.factory import build_engine
from vold.rollout.proof import weights_of
from vold.rollout.restart import RestartingEngine

SERVER = Execution(vllm=VLLMExecution(server=True, restarts=5))


def test_the_builtin_engine_is_the_default_and_uses_the_trainers_tensors(student: Student) -> None:
    engine = build_engine(student, RLConfig().rollout, Execution(rollout_batch=3))
    assert isinstance(engine, BuiltinEngine) and engine.live
    assert engine.model is student and engine.max_batch == 3
    assert engine.sync(weights_of(student)).tensors == 0
    engine.sleep()
    engine.close()


def test_vllm_starts_at_its_first_use(student: Student) -> None:
    engine = build_engine(student, "vllm", SERVER)
    assert isinstance(engine, RestartingEngine) and engine.restarts == 5 and not engine.live
    engine.close()


def test_several_ranks_need_the_server(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"set execution\.vllm\.server: true"):
        build_engine(student, "vllm", Execution())
    build_engine(student, "vllm", SERVER)
    build_engine(student, "builtin", Execution())
