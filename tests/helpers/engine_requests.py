"""Engines and requests of the tests that talk to the stub server."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.engines import Decoding, Engine, Request, RequestReplies
from bench.engines.endpoint import write_endpoint
from bench.engines.factory import EngineChoice, EnginePool
from bench.engines.openai import ChatEngine, connect
from bench.evaluation.model import model_hash
from bench.prompts import PromptPart
from vold.execution import ClientExecution, Execution

QUICK = {"backoff_seconds": 0.01, "max_backoff_seconds": 0.05, "retries": 3, "timeout_seconds": 5.0}
GREEDY = Decoding(max_tokens=16, temperature=0.0)


def text(content: str) -> list[PromptPart]:
    return [{"type": "text", "text": content}]


def pooled(pool: EnginePool, config: EngineChoice, model: Path, execution: Execution) -> Engine:
    """The pool's engine for the checkpoint as it is now."""
    return pool.engine(config, model, execution, model_hash(model))


def stats(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/stats") as reply:
        return json.load(reply)


class Asker:
    """Makes engines over the stub; they are closed at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engines: list[ChatEngine] = []

    def __call__(
        self,
        url: str,
        key_variable: str | None = None,
        model: str = "stub",
        thinking: bool | None = None,
        **settings: Any,
    ) -> ChatEngine:
        client = ClientExecution(**{**QUICK, **settings}, key_variable=key_variable)
        directory = write_endpoint(f"{url}#{model}", self.directory)
        self.engines.append(connect(directory, Execution(client=client), thinking=thinking))
        return self.engines[-1]


def answers(
    engine: ChatEngine, texts: Sequence[str], seeds: Sequence[int] = (7,), **sampling: Any
) -> dict[int, RequestReplies]:
    """By place, parts of an answer put together; each text is asked with all seeds."""
    asks = [Request(place, engine.preparer(text(content)), tuple(seeds)) for place, content in enumerate(texts)]
    settings = Decoding(**{"max_tokens": 16, "temperature": 0.0, **sampling})
    found: dict[int, RequestReplies] = {}
    for answer in engine.answer([[ask] for ask in asks], settings):
        before = found[answer.index].replies if answer.index in found else []
        assert answer.first == len(before)
        found[answer.index] = replace(answer, replies=[*before, *answer.replies], first=0)
    return found


def seconds(since: float) -> float:
    return time.monotonic() - since
