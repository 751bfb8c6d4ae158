"""Prompts that vLLM has no room for: whose fault it is decides whether the run ends. vLLM itself is not needed."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from bench.engines import Decoding, Request, RequestReplies
from bench.engines.vllm import VLLM
from bench.errors import ConfigurationError
from vold.execution import Execution
from vold.rollout.base import Completion

GREEDY = Decoding(max_tokens=24, temperature=0.0)
PROVEN = Decoding(max_tokens=24, temperature=0.0, proven=True)


class Engine:
    """Room for ``most`` tokens of the 4096 that its model was built for."""

    positions = 4096

    def __init__(self, most: int) -> None:
        self.most = most

    def check(self, request: Any, sampling: Any) -> None:
        if len(request.prompt_ids) + sampling.max_new_tokens > self.most:
            raise ValueError("raise execution.vllm.max_length")

    def stream(self, requests: Any, sampling: Any) -> Any:
        for number, _ in enumerate(request for request in requests if request is not None):
            yield number, 0, Completion((7,), (0.0,), "stop")


def answers(max_length: int | None, *lengths: int, decoding: Decoding = GREEDY) -> dict[int, str]:
    """How each ended, in the order in which they came."""
    return {answer.index: answer.replies[0].finish_reason for answer in asked(max_length, lengths, decoding)}


def asked(max_length: int | None, lengths: Sequence[int], decoding: Decoding = GREEDY) -> Iterator[RequestReplies]:
    engine = VLLM.__new__(VLLM)
    engine.execution = Execution.model_validate({"vllm": {"max_length": max_length}})
    engine.engine = Engine(max_length or 4096)  # type: ignore[assignment]
    engine.stop_ids = engine.banned_ids = ()
    engine.preparer = SimpleNamespace(sizes=lambda prompt: (len(prompt.prompt_ids), 0), decode=str)  # type: ignore[assignment]
    prompts = [SimpleNamespace(prompt_ids=(1,) * length, pixels=None) for length in lengths]
    requests = [Request(place, prompt, (5,)) for place, prompt in enumerate(prompts)]
    return engine.answer([requests], decoding)


def test_a_prompt_that_the_setting_alone_leaves_no_room_ends_the_run() -> None:
    assert answers(256, 100, 232) == {0: "stop", 1: "stop"}
    with pytest.raises(ConfigurationError, match=r"execution\.vllm\.max_length"):
        answers(256, 100, 233)


@pytest.mark.parametrize("max_length", [256, None])
def test_a_prompt_that_the_model_has_no_room_for_is_an_error_of_its_own(max_length: int | None) -> None:
    assert answers(max_length, 100, 5000) == {0: "stop", 1: "error"}


@pytest.mark.parametrize("number", [1, 24, 60])
def test_where_the_model_has_room_for_no_prompt_the_run_ends_and_nothing_is_yielded(number: int) -> None:
    came = []
    with pytest.raises(ConfigurationError, match=rf"max_tokens 24: none of the {min(number, 24)} prompts"):
        for answer in asked(None, [5000] * number):
            came.append(answer)
    assert came == []


def test_refusals_wait_for_the_first_answer_and_none_is_lost() -> None:
    found = answers(None, *[5000] * 23, 100, *[5000] * 30)
    assert found == {place: "stop" if place == 23 else "error" for place in range(54)}
    assert answers(None, *[5000] * 40, decoding=PROVEN) == dict.fromkeys(range(40), "error")
