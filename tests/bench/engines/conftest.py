"""Helpers of the tests that ask the stub server."""

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.request import urlopen

import pytest

from bench.engines import Answer, Ask, Settings
from bench.engines.openai import Chat, connect
from bench.prompts import Part
from vold.config import ClientExecution

QUICK = {"backoff_seconds": 0.01, "max_backoff_seconds": 0.05, "retries": 3, "timeout_seconds": 5.0}
GREEDY = Settings(max_tokens=16, temperature=0.0)


def text(content: str) -> list[Part]:
    return [{"type": "text", "text": content}]


def stats(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/stats") as reply:
        return json.load(reply)


class Asker:
    """An engine over the stub, closed at the end of the test."""

    def __init__(self) -> None:
        self.engines: list[Chat] = []

    def __call__(self, url: str, key: str | None = None, model: str = "stub", **settings: Any) -> Chat:
        engine = connect(url, model, key, ClientExecution(**{**QUICK, **settings}))
        self.engines.append(engine)
        return engine


def answers(engine: Chat, texts: Sequence[str], seeds: Sequence[int] = (7,), **sampling: Any) -> dict[int, Answer]:
    """By place; each text is asked with all seeds."""
    asks = [Ask(place, engine.preparer(text(content)), tuple(seeds)) for place, content in enumerate(texts)]
    settings = Settings(**{"max_tokens": 16, "temperature": 0.0, **sampling})
    return {answer.place: answer for answer in engine.answer([[ask] for ask in asks], settings)}


@pytest.fixture
def ask_stub():
    asker = Asker()
    yield asker
    for engine in asker.engines:
        engine.close()


def seconds(since: float) -> float:
    return time.monotonic() - since
