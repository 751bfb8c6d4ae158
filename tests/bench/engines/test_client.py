"""Every fault of a server, from a real server process, against what docs/reference/faults.md says about it."""

import asyncio
import json
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from bench.engines import Request
from bench.engines import client as client_module
from bench.engines.client import (
    ChatClient,
    ChatCompletion,
    Endpoint,
    RefusedError,
    UnansweredError,
    _parse,
    _retry_after,
)
from bench.engines.endpoint import base_url
from bench.engines.openai import _replies
from bench.errors import ConfigurationError
from tests.helpers.engine_requests import GREEDY, answers, seconds, stats, text
from tests.helpers.stub_server import stub_server
from vold.execution import ClientExecution
from vold.rollout.base import EngineError


@pytest.fixture(scope="module")
def faulty():
    """A server that fails in the way that a text names, twice, then answers."""
    names = ["408", "409", "425", "429", "500", "502", "503", "599", "garbage", "empty", "half", "reset"]
    faults = {f"^{name}$": [name, name] for name in names}
    faults |= {"^hang$": ["hang"], "^trickle$": ["trickle"]}
    with stub_server("--faults", json.dumps(faults)) as (url, _):
        yield url, names


def test_faults_of_the_server_are_asked_again_until_it_answers(faulty, ask_stub):
    url, names = faulty
    engine = ask_stub(url)
    before = stats(url)["requests"]
    found = answers(engine, names)
    assert sorted(found) == list(range(len(names)))
    assert all(answer.replies[0].text.startswith("stub 7 ") for answer in found.values())
    assert stats(url)["requests"] - before == 3 * len(names)


def test_a_server_that_hangs_is_left_after_the_read_timeout_and_asked_again(faulty, ask_stub):
    engine = ask_stub(faulty[0], read_timeout_seconds=0.3)
    start = time.monotonic()
    assert len(answers(engine, ["hang"])) == 1
    assert 0.3 < seconds(start) < 4.5


def test_a_reply_that_never_ends_is_left_after_the_total_timeout(faulty, ask_stub):
    engine = ask_stub(faulty[0], timeout_seconds=0.6)
    start = time.monotonic()
    assert len(answers(engine, ["trickle"])) == 1
    assert 0.6 < seconds(start) < 4.5


@pytest.mark.parametrize("status", ["400", "413", "415", "422"])
def test_a_refused_request_is_that_items_error_alone(status: str, ask_stub):
    with stub_server("--faults", json.dumps({"bad": [status] * 9})) as (url, _):
        engine = ask_stub(url)
        found = answers(engine, ["good", "bad", "good"], seeds=(1, 2), temperature=1.0)
        assert stats(url)["requests"] == 3  # not asked again
    assert [reply.finish_reason for reply in found[1].replies] == ["error", "error"]
    assert found[1].replies[0].text == f"HTTP {status}: told to answer {status}"
    assert found[0].replies[0].finish_reason == found[2].replies[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fault", "words"),
    [("400", "HTTP 400: told to answer 400"), ("filtered", "the server withheld the reply: content_filter")],
)
def test_a_server_that_refuses_everything_is_reported_after_24_requests_and_nothing_is_yielded(
    fault: str, words: str, ask_stub
):
    with stub_server("--faults", json.dumps({"bad": [fault] * 999})) as (url, _):
        engine, found = ask_stub(url, concurrency=1, max_concurrency=1), []
        asks = [Request(place, engine.preparer(text("bad")), (1, 2)) for place in range(99)]
        for number in (99, 3):
            with pytest.raises(ConfigurationError, match=rf"refused all .* '{words}'"):
                found += engine.answer([asks[:number]], GREEDY)
        assert 24 + 3 <= stats(url)["requests"] <= 24 + 9 + 3 and not found
        known = engine.answer([asks[:30]], replace(GREEDY, proven=True))
        assert [reply.finish_reason for answer in known for reply in answer.replies] == ["error"] * 60


def test_a_filtered_reply_is_that_items_error_alone(ask_stub):
    with stub_server("--faults", json.dumps({"bad": ["filtered"] * 99})) as (url, _):
        found = answers(ask_stub(url), ["bad"] * 20 + ["good"])
    assert [found[place].replies[0].finish_reason for place in range(21)] == ["error"] * 20 + ["stop"]


def test_refusals_are_waited_for_no_longer_than_until_the_first_answer(ask_stub):
    with stub_server("--faults", json.dumps({"bad": ["400"] * 999, "good": ["slow:0.5"]})) as (url, _):
        found = answers(ask_stub(url, concurrency=64), ["good"] + ["bad"] * 80)
    assert [found[place].replies[0].finish_reason for place in range(81)] == ["stop"] + ["error"] * 80


def test_a_reply_without_end_is_not_taken_into_memory(ask_stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client_module, "_LONGEST_REPLY", 2**20)
    with stub_server("--replies", json.dumps({"^(x*)$": r"\1"})) as (url, _):
        assert sorted(answers(ask_stub(url), ["x" * 2**18, "x" * 2**20])) == [0]
        with pytest.raises(EngineError, match="the reply is longer than 1 MiB"):
            answers(ask_stub(url), ["x" * 2**20])


@pytest.mark.parametrize(
    ("status", "mend"), [("401", "key"), ("403", "key"), ("404", "model name"), ("405", "URL"), ("307", "URL")]
)
def test_a_wrong_configuration_ends_the_run_at_once(status: str, mend: str, ask_stub):
    with stub_server("--faults", json.dumps({"9": [status] * 99})) as (url, _):
        with pytest.raises(ConfigurationError, match=mend) as told:
            answers(ask_stub(url), [str(place) for place in range(40)])
        assert url in str(told.value) and f"HTTP {status}" in str(told.value)


def test_a_key_is_sent_and_a_wrong_one_named(ask_stub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RIGHT", "secret")
    monkeypatch.setenv("WRONG", "mistaken")
    with stub_server("--key", "secret") as (url, _):
        assert len(answers(ask_stub(url, "RIGHT"), ["a"])) == 1
        with pytest.raises(ConfigurationError, match="right key") as told:
            answers(ask_stub(url, "WRONG"), ["a"])
        assert "mistaken" not in str(told.value)
        with pytest.raises(ConfigurationError, match="ABSENT: this environment variable is not set"):
            ask_stub(url, "ABSENT")


def test_an_unanswered_request_is_missing_and_the_others_continue(ask_stub):
    with stub_server("--faults", json.dumps({"bad": ["500"] * 99})) as (url, _):
        found = answers(ask_stub(url), ["bad", "a", "bad", "b"])
        assert sorted(found) == [1, 3]
        assert stats(url)["requests"] == 2 + 2 * 4


def test_a_server_that_answers_nothing_any_more_is_gone(ask_stub):
    with stub_server("--faults", json.dumps({"bad": ["500"] * 9999})) as (url, _):
        engine = ask_stub(url, gone_after=5)
        with pytest.raises(EngineError, match=r"5 requests in a row were not answered.*HTTP 500"):
            answers(engine, ["good"] * 10 + ["bad"] * 90)
        with pytest.raises(EngineError, match="no request was answered"):
            answers(ask_stub(url), ["bad"])


def test_a_server_that_dies_is_gone_and_an_absent_one_is_named(ask_stub):
    with stub_server("--faults", json.dumps({"last": ["die"]})) as (url, _):
        engine = ask_stub(url, gone_after=1)
        with pytest.raises(EngineError, match="were not answered"):
            answers(engine, ["a", "b", "last"])
        with pytest.raises(EngineError, match=f"{url}: no server answers there"):
            ask_stub(url)


def test_another_model_or_a_url_that_is_none_is_refused(ask_stub):
    with stub_server("--model", "one") as (url, _), pytest.raises(ConfigurationError, match="serves one, not 'two'"):
        ask_stub(url, model="two")
    for wrong in ("localhost:8000", "ftp://x/v1", "/v1", "http://", "http://[x", "http://x:port", "http://x:99999"):
        with pytest.raises(ConfigurationError, match="not a server's URL"):
            base_url(wrong)


def test_retry_after_is_kept_by_all_requests(ask_stub):
    with stub_server("--faults", json.dumps({"first": ["429:0.7"]})) as (url, _):
        assert len(answers(ask_stub(url, concurrency=1), ["first", "a", "b"])) == 3
        times = stats(url)["times"]
    assert times[1] - times[0] >= 0.7


def test_retry_after_may_be_a_date():
    assert 28 < _retry_after(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert _retry_after(formatdate(time.time() - 30, usegmt=True)) == 0


@pytest.mark.slow
def test_retry_after_that_says_nothing_or_too_much_is_bounded(ask_stub):
    for value in ("soon", "-5", "1e9", "Mon, 99 Foo"):
        with stub_server("--faults", json.dumps({"a": [f"429:{value}"]})) as (url, _):
            start = time.monotonic()
            assert len(answers(ask_stub(url, timeout_seconds=1.0), ["a"])) == 1
            assert seconds(start) < 5


def test_waits_double_with_a_jitter_that_the_seed_fixes():
    settings = ClientExecution(backoff_seconds=1.0, max_backoff_seconds=4.0)
    client = ChatClient([], settings, seed=3)
    waits = [client._backoff("x", attempt) for attempt in range(6)]
    for wait, longest in zip(waits, [1, 2, 4, 4, 4, 4], strict=True):
        assert longest / 2 <= wait <= longest
    assert waits == [ChatClient([], settings, seed=3)._backoff("x", attempt) for attempt in range(6)]
    assert waits != [client._backoff("y", attempt) for attempt in range(6)]


def test_concurrency_grows_while_the_server_keeps_up(ask_stub):
    with stub_server("--latency", "0.02") as (url, _):
        engine = ask_stub(url, concurrency=2, max_concurrency=24)
        assert len(answers(engine, ["a"] * 300)) == 300
        assert 8 <= stats(url)["most"] <= 24


def test_concurrency_falls_where_the_server_is_overrun_and_nothing_is_lost(ask_stub):
    with stub_server("--latency", "0.01", "--at-once", "8") as (url, _):
        engine = ask_stub(url, concurrency=64, retries=12)
        assert len(answers(engine, ["a"] * 400)) == 400
        assert engine.client.capacity <= 16
        refused = stats(url)["refused"]
    assert 0 < refused < 200


def test_the_limit_halves_once_for_requests_that_were_under_way_together():
    endpoint = Endpoint("http://x", None, ClientExecution(concurrency=64))
    sent = time.monotonic()
    for _ in range(64):
        endpoint.record_congestion(sent)
    assert endpoint.limit == 32
    endpoint.record_congestion(time.monotonic())
    assert endpoint.limit == 16
    endpoint.in_flight = 16  # from here on one more for a whole round of replies
    for _ in range(16):
        endpoint.record_reply()
    assert 16.9 < endpoint.limit <= 17
    for _ in range(99):
        endpoint.record_congestion(time.monotonic())
    assert endpoint.limit == 1


def test_requests_go_to_the_least_loaded_server_that_is_up():
    settings = ClientExecution(concurrency=4)

    async def choose() -> list[int]:
        endpoints = [Endpoint(url, None, settings) for url in ("http://a", None, "http://c")]
        client = ChatClient(endpoints, settings)
        return [endpoints.index(await client._acquire()) for _ in range(8)]

    chosen = asyncio.run(choose())
    assert sorted(chosen) == [0] * 4 + [2] * 4
    assert set(chosen[:2]) == set(chosen[2:4]) == {0, 2}


@pytest.mark.parametrize(
    ("choice", "text", "why"),
    [
        ({"message": {"content": "a"}, "finish_reason": "stop"}, "a", "stop"),
        ({"message": {"content": None}, "finish_reason": "stop"}, "", "stop"),
        ({"message": {"content": "cut"}, "finish_reason": "length"}, "cut", "length"),
        ({"message": {"content": "x"}, "finish_reason": "content_filter"}, "withheld", "error"),
        ({"message": {"content": "\ud800x"}, "finish_reason": "stop"}, "�x", "stop"),
    ],
)
def test_choices_are_read(choice: dict, text: str, why: str):
    found = _parse(json.dumps({"choices": [choice]}).encode())
    assert isinstance(found, ChatCompletion)
    assert text in found.choices[0].text and found.choices[0].finish_reason == why


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"error": {"message": "busy"}}', b'{"choices": [{}]}', b'{"choices": [1]}', b"[" * 10**5,
     b'{"choices": [{"message": {"content": ["x"]}, "finish_reason": "stop"}]}',
     b'{"choices": [{"message": {"content": "x"}, "finish_reason": "abort"}]}',
     b'{"choices": [{"message": {"content": "x"}}]}'],
)  # fmt: skip
def test_an_invalid_reply_is_a_fault_of_the_server(body: bytes):
    assert not isinstance(_parse(body), ChatCompletion)


@pytest.mark.parametrize("count", ["3", 12.5, [1], {}, True, -1, 1e400, 2**70, None])
def test_lengths_that_are_not_counts_are_left_out(count):
    choice = {"message": {"content": "x"}, "finish_reason": "stop", "token_ids": count if count == "3" else None}
    usage = {"prompt_tokens": count, "completion_tokens": count}
    found = _parse(json.dumps({"choices": [choice], "usage": usage, "prompt_token_ids": choice["token_ids"]}).encode())
    assert isinstance(found, ChatCompletion)
    assert (found.prompt_tokens, found.completion_tokens, found.prompt_token_ids) == (None, None, None)
    assert found.choices[0].tokens is None
    assert [(reply.text, reply.tokens) for reply in _replies(found)] == [("x", 0)]


def test_errors_of_one_request_are_distinguished():
    with stub_server("--faults", json.dumps({"bad": ["400"], "down": ["500"] * 9})) as (url, _):

        async def ask(content: str) -> None:
            settings = ClientExecution(retries=1, backoff_seconds=0)
            client = ChatClient([Endpoint(url, None, settings)], settings)
            try:
                await client.complete(json.dumps({"messages": [{"content": content}]}).encode(), 0)
            finally:
                await client.close()

        with pytest.raises(RefusedError, match="HTTP 400"):
            asyncio.run(ask("bad"))
        with pytest.raises(UnansweredError, match="HTTP 500"):
            asyncio.run(ask("down"))
