"""An engine over OpenAI-compatible servers: messages go out as JSON, images as data URLs in them. No torch here."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from bench.engines.base import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.client import ChatClient, ChatCompletion, Endpoint, RefusedError, UnansweredError
from bench.engines.endpoint import base_url, described
from bench.engines.images import data_url
from bench.engines.refusals import Refusals
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.config import ClientExecution
from vold.rollout.base import EngineError

_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's turn: the JSON of ``messages``, and the parts that it was made of."""

    messages: bytes
    parts: Sequence[PromptPart]


@dataclass(frozen=True, slots=True)
class MessagePreparer:
    """Implements ``Preparer``.

    factor: patch size times merge size, of which the sides of resized images are multiples (28: Qwen2.5-VL's).
    """

    pixel_limits: tuple[int, int] | None = None
    factor: int = 28

    def __call__(self, parts: Sequence[PromptPart]) -> Turn:
        content = [self._part(part) for part in parts]
        return Turn(json.dumps([{"role": "user", "content": content}], separators=(",", ":")).encode(), parts)

    def _part(self, part: PromptPart) -> dict[str, Any]:
        if "path" in part:
            url = data_url(Path(part["path"]), self.pixel_limits, self.factor)
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "text", "text": part.get("text", "")}


class Background:
    """An event loop in a thread, for callers that are no coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Chat:
    """Implements ``Engine`` over ``endpoints`` that all serve ``model``.

    extra: further fields of every request. image_id: the token that stands for images, to count what they take where
    the server tells the prompt's ids. Several samples of a turn are one request (``n``) where their seeds
    follow one another: vLLM gives sample k the seed + k; a server that sends fewer choices is asked for the rest.
    """

    grouped = False

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        model: str,
        settings: ClientExecution,
        preparer: MessagePreparer,
        *,
        name: str = "openai",
        extra: Mapping[str, Any] | None = None,
        image_id: int | None = None,
    ) -> None:
        self.model, self.preparer, self.name, self.extra = model, preparer, name, dict(extra or {})
        self.image_id = image_id
        self.client = ChatClient(endpoints, settings)
        self._background = Background()

    def answer(self, groups: Iterable[Sequence[Request]], settings: Decoding) -> Iterator[RequestReplies]:
        asks = chain.from_iterable(groups)
        done: SimpleQueue[RequestReplies | Future[RequestReplies | None]] = SimpleQueue()
        under_way: dict[Future[RequestReplies | None], Request] = {}
        refusals, answered, missed = Refusals(settings.proven), 0, ""
        try:
            more = True
            while under_way or (more and not refusals.enough):
                if more and not refusals.enough and len(under_way) < self.client.capacity + _AHEAD:
                    ask = next(asks, None)
                    if ask is None:
                        more = False
                    else:
                        future = self._background.start(self._answer(ask, settings, done.put))
                        under_way[future] = ask
                        future.add_done_callback(done.put)
                    wait = False
                else:
                    wait = True
                try:
                    outcome = done.get(block=wait)
                except Empty:
                    continue
                if isinstance(outcome, Future):
                    asked = under_way.pop(outcome)
                    try:
                        refusal = outcome.result()
                    except UnansweredError as error:
                        missed = str(error)
                        continue
                    if refusal is None:
                        continue
                    self._check_refusal(asked, settings)
                    outcome = refusal
                ready = refusals.sift(outcome)
                answered += len(ready)
                yield from ready
        finally:
            for future in under_way:
                future.cancel()
        held = refusals.held
        if refusals.enough or (held and not missed):
            raise ConfigurationError(
                f"{self.client.endpoints[0].url}: refused each of the {len(held)} requests that it was sent, the last "
                f"with {held[-1].replies[0].text!r}; nothing of this is kept: choose a model and settings that it takes"
            )
        if missed and not refusals.proven:
            raise EngineError(f"no request was answered; the last: {missed}")
        if missed and not answered:  # is it these requests, or is the server gone?
            self.check_model()

    def read(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return None

    def about(self) -> dict[str, Any]:
        limits = self.preparer.pixel_limits
        sent = {} if limits is None else {"pixel_limits": list(limits), "pixel_factor": self.preparer.factor}
        return {"name": self.name, "model": self.model, **sent}

    def close(self) -> None:
        if not self._background.loop.is_closed():
            self._background.start(self.client.close()).result()
            self._background.close()

    def check_model(self) -> None:
        """Raise ConfigurationError where the server knows other models only, EngineError where there is none."""
        self._background.start(self.client.require(self.model)).result()

    def check_switch(self) -> None:
        """Raise ConfigurationError where ``extra`` changes nothing in how long the server's template makes a prompt."""
        url = self.client.endpoints[0].url
        try:
            plain, switched = (self._background.start(self._length(extra)).result() for extra in ({}, self.extra))
        except RefusedError as error:
            raise ConfigurationError(f"{url}: refuses {self.extra} ({error}); leave that setting out") from error
        if plain is None or plain == switched:
            told = "it does not tell how long a prompt is" if plain is None else "its prompt stays as long as it is"
            raise ConfigurationError(
                f"{url}: thinking cannot be turned off with {self.extra}, {told}; leave that setting out, or serve a "
                "model whose chat template has the switch"
            )

    async def _length(self, extra: Mapping[str, Any]) -> int | None:
        """Tokens of the shortest prompt, where the server tells."""
        fields = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1, **extra}
        return (await self.client.complete(json.dumps(fields).encode(), "switch")).prompt_tokens

    async def _answer(
        self, ask: Request, settings: Decoding, give: Callable[[RequestReplies], None]
    ) -> RequestReplies | None:
        """``give`` each request's samples as they come; returned are errors for those that the server refused."""
        first = 0
        while first < len(ask.seeds):
            seeds = _consecutive(ask.seeds[first:])
            try:
                completion = await self.client.complete(self._body(ask.prepared.messages, seeds, settings), ask.place)
            except RefusedError as error:
                refused = Reply(str(error), 0, "error")
                return RequestReplies(ask.place, [refused] * (len(ask.seeds) - first), first=first)
            ids = completion.prompt_token_ids
            visual_tokens = None if ids is None or self.image_id is None else ids.count(self.image_id)
            replies = _replies(completion)[: len(seeds)]
            give(RequestReplies(ask.place, replies, completion.prompt_tokens, visual_tokens, first))
            first += len(replies)
        return None

    def _check_refusal(self, ask: Request, settings: Decoding) -> None:
        """Raises ConfigurationError where a setting of ours is to blame."""

    def _body(self, messages: bytes, seeds: Sequence[int], settings: Decoding) -> bytes:
        fields = {
            "model": self.model, "max_tokens": settings.max_tokens, "temperature": settings.temperature,
            "top_p": 1, "n": len(seeds), "seed": seeds[0], **self.extra,
        }  # fmt: skip
        return b'{"messages":' + messages + b"," + json.dumps(fields).encode()[1:]


def connect(
    directory: Path,
    settings: ClientExecution,
    pixel_limits: tuple[int, int] | None = None,
    thinking: bool | None = None,
) -> Chat:
    """An engine over the server that ``directory`` describes.

    Raises ConfigurationError and EngineError where that cannot serve the model, or not without its thoughts.
    """
    remote = described(directory)
    endpoint = Endpoint(base_url(remote.url), key_of(settings), settings)
    preparer = MessagePreparer(pixel_limits, remote.pixel_factor)
    engine = Chat([endpoint], remote.model, settings, preparer, extra=template_switch(thinking))
    try:
        engine.check_model()
        if thinking is not None:
            engine.check_switch()
    except UnansweredError as error:
        engine.close()
        raise EngineError(f"{remote.url}: {error}") from error
    except BaseException:
        engine.close()
        raise
    return engine


def key_of(settings: ClientExecution) -> str | None:
    """The key in the environment variable that the settings name; raises ConfigurationError where it is empty."""
    if settings.key_variable is None:
        return None
    if key := os.environ.get(settings.key_variable):
        return key
    raise ConfigurationError(f"{settings.key_variable}: no such environment variable, or it is empty; it holds the key")


def template_switch(thinking: bool | None) -> dict[str, Any]:
    """The field of a request that sets the chat template's own switch, as vLLM and SGLang know it."""
    return {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}


def _consecutive(seeds: Sequence[int]) -> Sequence[int]:
    """As many of the first seeds as follow one another."""
    length = 1
    while length < len(seeds) and seeds[length] == seeds[0] + length:
        length += 1
    return seeds[:length]


def _replies(completion: ChatCompletion) -> list[Reply]:
    """Where a server tells only how long all samples are together, that is shared out by the length of their texts."""
    total, characters = completion.completion_tokens, sum(len(choice.text) for choice in completion.choices)
    replies, given, seen = [], 0, 0
    for choice in completion.choices:
        seen += len(choice.text)
        share = round((total or 0) * seen / characters) - given if characters else 0
        given += share
        tokens = share if choice.tokens is None else choice.tokens
        replies.append(Reply(choice.text, tokens, choice.finish_reason))  # type: ignore[arg-type]
    return replies
