"""The engine for OpenAI-compatible servers. Messages are JSON with images as data URLs. Works without torch."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from bench.engines.base import Decoding, PromptReading, Reply, Request, RequestReplies
from bench.engines.client import ChatClient, ChatCompletion, Endpoint, RefusedError, UnansweredError
from bench.engines.endpoint import base_url, key_from_environment, read_endpoint
from bench.engines.images import data_url
from bench.engines.refusals import Refusals
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.execution import ClientExecution, Execution
from vold.rollout.base import EngineError

T = TypeVar("T")

_AHEAD = 8
"""Requests that are started beyond what the servers may work on now."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A user turn: the JSON of ``messages``, and the parts from which it was made."""

    messages: bytes
    parts: Sequence[PromptPart]


@dataclass(frozen=True, slots=True)
class MessagePreparer:
    """Implements ``Preparer`` for servers.

    factor: patch size times merge size. The sides of resized images are multiples of it. Qwen2.5-VL has 28.
    """

    pixel_limits: tuple[int, int] | None = None
    factor: int = 28

    def __call__(self, parts: Sequence[PromptPart]) -> Turn:
        content = [self._part(part) for part in parts]
        return Turn(json.dumps([{"role": "user", "content": content}], separators=(",", ":")).encode(), parts)

    def _part(self, part: PromptPart) -> dict[str, object]:
        if "path" in part:
            url = data_url(Path(part["path"]), self.pixel_limits, self.factor)
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "text", "text": part.get("text", "")}


class LoopThread:
    """An event loop in a background thread, for callers that are not coroutines."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[object, None, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class ChatEngine:
    """Implements ``Engine`` for ``endpoints`` that all serve ``model``.

    extra: further fields of every request. image_id: the token id of image positions, used to count them if the server
    returns the prompt's ids.

    Samples of a turn with consecutive seeds are one request with ``n`` choices, because vLLM gives sample k the seed
    + k. If a server returns fewer choices, it gets another request for the rest.
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
        extra: Mapping[str, object] | None = None,
        image_id: int | None = None,
    ) -> None:
        self.model, self.preparer, self.name, self.extra = model, preparer, name, dict(extra or {})
        self.image_id = image_id
        self.client = ChatClient(endpoints, settings)
        self._thread = LoopThread()

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        requests = chain.from_iterable(groups)
        events: SimpleQueue[RequestReplies | Future[RequestReplies | None]] = SimpleQueue()
        running: dict[Future[RequestReplies | None], Request] = {}
        refusals, answered, unanswered = Refusals(decoding.proven), 0, ""
        try:
            more = True
            while running or (more and not refusals.enough):
                wait = True
                if more and not refusals.enough and len(running) < self.client.capacity + _AHEAD:
                    wait = False
                    request = next(requests, None)
                    if request is None:
                        more = False
                    else:
                        future = self._thread.start(self._send(request, decoding, events.put))
                        running[future] = request
                        future.add_done_callback(events.put)
                try:
                    event = events.get(block=wait)
                except Empty:
                    continue
                if isinstance(event, Future):
                    request = running.pop(event)
                    try:
                        refusal = event.result()
                    except UnansweredError as error:
                        unanswered = str(error)
                        continue
                    if refusal is None:
                        continue
                    self._check_refusal(request, decoding)
                    event = refusal
                ready = refusals.release(event)
                answered += len(ready)
                yield from ready
        finally:
            for future in running:
                future.cancel()
        if refusals.enough or (refusals.pending and not unanswered):
            raise self._refused_everything(refusals)
        if unanswered and not refusals.proven:
            raise EngineError(f"no request was answered; the last error: {unanswered}")
        if unanswered and not answered:  # finds out whether the server is gone
            self.check_model()

    def _refused_everything(self, refusals: Refusals) -> ConfigurationError:
        reason = refusals.pending[-1].replies[0].text
        return ConfigurationError(
            f"{self.client.endpoints[0].url}: refused all {len(refusals.pending)} requests, the last with {reason!r}. "
            "No response is recorded. Choose a model and settings that the server accepts"
        )

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return None

    def about(self) -> dict[str, object]:
        limits = self.preparer.pixel_limits
        sent = {} if limits is None else {"pixel_limits": list(limits), "pixel_factor": self.preparer.factor}
        return {"name": self.name, "model": self.model, **sent}

    def close(self) -> None:
        if not self._thread.loop.is_closed():
            self._thread.start(self.client.close()).result()
            self._thread.close()

    def check_model(self) -> None:
        """Raise ConfigurationError if the server has other models only, and EngineError if no server answers."""
        self._thread.start(self.client.require(self.model)).result()

    def check_switch(self) -> None:
        """Raise ConfigurationError if ``extra`` does not change the length of the server's prompt."""
        url = self.client.endpoints[0].url
        try:
            plain, switched = (self._thread.start(self._length(extra)).result() for extra in ({}, self.extra))
        except RefusedError as error:
            raise ConfigurationError(f"{url}: refuses {self.extra} ({error}). Remove this setting") from error
        if plain is None or plain == switched:
            reason = (
                "it does not report the length of a prompt" if plain is None else "the prompt's length does not change"
            )
            raise ConfigurationError(
                f"{url}: cannot verify that {self.extra} turns thinking off, because {reason}. Remove this setting, or "
                "serve a model whose chat template has the switch"
            )

    async def _length(self, extra: Mapping[str, object]) -> int | None:
        """Tokens of a minimal prompt, or None if the server does not report them."""
        fields = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1, **extra}
        return (await self.client.complete(json.dumps(fields).encode(), "switch")).prompt_tokens

    async def _send(
        self, request: Request, decoding: Decoding, emit: Callable[[RequestReplies], None]
    ) -> RequestReplies | None:
        """Pass each reply to ``emit`` as it comes. Returns error replies if the server refused the request."""
        first = 0
        while first < len(request.seeds):
            seeds = _consecutive(request.seeds[first:])
            body = self._body(request.prepared.messages, seeds, decoding)
            try:
                completion = await self.client.complete(body, request.index)
            except RefusedError as error:
                refused = Reply(str(error), 0, "error")
                return RequestReplies(request.index, [refused] * (len(request.seeds) - first), first=first)
            ids = completion.prompt_token_ids
            visual_tokens = None if ids is None or self.image_id is None else ids.count(self.image_id)
            replies = _replies(completion)[: len(seeds)]
            emit(RequestReplies(request.index, replies, completion.prompt_tokens, visual_tokens, first))
            first += len(replies)
        return None

    def _check_refusal(self, request: Request, decoding: Decoding) -> None:
        """Raise ConfigurationError if a setting of the evaluation caused the refusal."""

    def _body(self, messages: bytes, seeds: Sequence[int], decoding: Decoding) -> bytes:
        fields = {
            "model": self.model, "max_tokens": decoding.max_tokens, "temperature": decoding.temperature,
            "top_p": 1, "n": len(seeds), "seed": seeds[0], **self.extra,
        }  # fmt: skip
        return b'{"messages":' + messages + b"," + json.dumps(fields).encode()[1:]


def connect(
    directory: Path,
    execution: Execution,
    pixel_limits: tuple[int, int] | None = None,
    thinking: bool | None = None,
) -> ChatEngine:
    """An engine for the server that ``directory`` describes.

    Raises ConfigurationError or EngineError if the server cannot serve the model, or cannot turn its thinking on or off
    as ``thinking`` says.
    """
    remote, settings = read_endpoint(directory), execution.client
    endpoint = Endpoint(base_url(remote.url), key_from_environment(settings.key_variable), settings)
    preparer = MessagePreparer(pixel_limits, remote.pixel_factor)
    engine = ChatEngine([endpoint], remote.model, settings, preparer, extra=template_switch(thinking))
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


def template_switch(thinking: bool | None) -> dict[str, object]:
    """The field of a request that sets the chat template's thinking switch on vLLM and SGLang."""
    return {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}


def _consecutive(seeds: Sequence[int]) -> Sequence[int]:
    """The longest run of consecutive seeds at the start."""
    length = 1
    while length < len(seeds) and seeds[length] == seeds[0] + length:
        length += 1
    return seeds[:length]


def _replies(completion: ChatCompletion) -> list[Reply]:
    """One reply per choice. A server's total token count is divided in proportion to the lengths of the texts."""
    total, characters = completion.completion_tokens, sum(len(choice.text) for choice in completion.choices)
    replies, tokens_before, characters_so_far = [], 0, 0
    for choice in completion.choices:
        characters_so_far += len(choice.text)
        share = round((total or 0) * characters_so_far / characters) - tokens_before if characters else 0
        tokens_before += share
        tokens = share if choice.tokens is None else choice.tokens
        replies.append(Reply(choice.text, tokens, choice.finish_reason))
    return replies
