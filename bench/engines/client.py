"""The client for OpenAI-compatible servers: ``POST /v1/chat/completions`` with retries and adaptive concurrency.

An error is handled by its cause. Errors of the server or the network are retried after a pause. An error of the
request concerns this request alone. An error of the configuration ends the run at once.
"""

import asyncio
import io
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp

from bench.errors import ConfigurationError
from bench.records import storable
from vold.execution import ClientExecution
from vold.rollout.base import EngineError
from vold.seeding import Name, generator

_REFUSED = frozenset({400, 413, 415, 422})
_RETRIED = frozenset({408, 409, 425, 429})
_CONGESTED = frozenset({429, 503})
_FIXES = {
    401: "give the right key",
    403: "give a key that may use this model",
    404: "check the URL (it usually ends in /v1) and the model name",
}
_FINISHED: dict[str, Literal["stop", "length"]] = {
    "stop": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
}  # fmt: skip
_WITHHELD = frozenset({"content_filter", "tool_calls", "function_call"})
_LARGE_BODY = 2**20
_LONGEST_REPLY = 64 * 2**20
"""Bytes. 64 samples of 32,768 tokens with their ids need about half of it."""


class RefusedError(ValueError):
    """The server will never answer this request, but may answer others."""


class UnansweredError(Exception):
    """The retries are used up and there is no answer."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One sample. ``tokens`` is its length, or None if the server does not report it."""

    text: str
    tokens: int | None
    finish_reason: Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A reply with at least one choice, in the order of their indices. Counts that were not reported are None."""

    choices: tuple[Choice, ...]
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    prompt_token_ids: tuple[int, ...] | None = None


class Endpoint:
    """A server and the limit of concurrent requests to it.

    ``url`` is None while the server is down. The limit grows by one per reply until the first sign of congestion, and
    then by one per round of replies. It halves at most once for all requests that were in flight together. This is
    additive increase, multiplicative decrease (Chiu and Jain 1989).
    """

    def __init__(self, url: str | None, key: str | None, settings: ClientExecution) -> None:
        self.url, self.key = url, key
        self.ceiling = settings.max_concurrency
        self.limit = float(min(settings.concurrency, settings.max_concurrency))
        self.in_flight = self.answered = 0
        self.resume_at = 0.0
        self._threshold, self._cut_at = float("inf"), 0.0

    def is_free(self, now: float) -> bool:
        return self.url is not None and self.in_flight < int(self.limit) and self.resume_at <= now

    def record_reply(self) -> None:
        """Count a reply, which is still in flight, and raise the limit if it was reached."""
        self.answered += 1
        if self.in_flight >= int(self.limit):
            step = 1.0 if self.limit < self._threshold else 1 / self.limit
            self.limit = min(float(self.ceiling), self.limit + step)

    def record_congestion(self, sent_at: float) -> None:
        """Halve the limit, unless it was halved after the request was sent."""
        if sent_at >= self._cut_at:
            self.limit = self._threshold = max(1.0, self.limit / 2)
            self._cut_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why an attempt failed, if the request itself is not at fault."""

    reason: str
    congestion: bool = False
    retry_after: float = 0.0


class ChatClient:
    """Sends each request to the least loaded of ``endpoints``. All calls must come from one event loop.

    seed: for the random jitter of the pauses. Raises RefusedError for a request that no server will answer,
    UnansweredError for a request whose retries are used up, EngineError after ``gone_after`` such requests in a row,
    and ConfigurationError if key, model or URL are wrong.
    """

    def __init__(self, endpoints: Sequence[Endpoint], settings: ClientExecution, seed: int = 0) -> None:
        self.endpoints, self.settings, self.seed = endpoints, settings, seed
        self.lost: EngineError | None = None
        """The reason, once no server will come back."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._unanswered_in_a_row = 0
        self._session: aiohttp.ClientSession | None = None

    @property
    def capacity(self) -> int:
        """How many requests may be in flight now."""
        return sum(int(endpoint.limit) for endpoint in self.endpoints)

    async def complete(self, body: bytes, name: Name) -> ChatCompletion:
        """Request a completion. body: the complete JSON. name: names the request's stream of random jitter."""
        for attempt in range(self.settings.retries + 1):
            endpoint = await self._acquire()
            sent_at = time.monotonic()
            try:
                outcome = await self._attempt(endpoint, body)
                self._adapt(endpoint, outcome, sent_at)
            finally:
                endpoint.in_flight -= 1
                self.wake()
            if isinstance(outcome, ChatCompletion):
                self._unanswered_in_a_row = 0
                return outcome
            if attempt == self.settings.retries:
                raise self._unanswered(outcome.reason)
            await asyncio.sleep(outcome.retry_after + self._backoff(name, attempt))
        raise AssertionError("the last attempt returns or raises")

    def _unanswered(self, reason: str) -> UnansweredError | EngineError:
        """Count a request whose retries are used up; an EngineError once too many follow each other."""
        self._unanswered_in_a_row += 1
        if self._unanswered_in_a_row < self.settings.gone_after:
            return UnansweredError(reason)
        return EngineError(
            f"{self._unanswered_in_a_row} requests in a row were not answered, the last: {reason}. "
            "If only these requests fail, raise execution.client.gone_after"
        )

    async def models(self) -> list[str]:
        """The models of the first server, or [] if it does not list them. Raises like ``complete``, without retries."""
        endpoint = self.endpoints[0]
        try:
            async with self._opened().get(f"{endpoint.url}/models", headers=_headers(endpoint)) as response:
                if response.status in (401, 403):
                    raise ConfigurationError(_misconfigured(endpoint, response.status, await _body(response)))
                reply = json.loads(await _body(response)) if response.status == 200 else {}
                return [str(model["id"]) for model in reply.get("data", ())]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineError(f"{endpoint.url}: no server answers there ({_summary(error)})") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, ConfigurationError):
                raise
            return []

    async def require(self, model: str) -> None:
        """Raise ConfigurationError if the first server has other models only, and EngineError if it does not answer."""
        names = await self.models()
        if names and model not in names:
            raise ConfigurationError(
                f"{self.endpoints[0].url}: serves {', '.join(names[:10])}, not {model!r}. Name one of these"
            )

    def wake(self) -> None:
        """Let a waiting request look for a free server again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _acquire(self) -> Endpoint:
        while True:
            if self.lost is not None:
                self.wake()
                raise self.lost
            now = time.monotonic()
            free = [endpoint for endpoint in self.endpoints if endpoint.is_free(now)]
            if free:
                least_loaded = min(free, key=lambda endpoint: endpoint.in_flight / endpoint.limit)
                least_loaded.in_flight += 1
                self.wake()  # there may be room for another request
                return least_loaded
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    async def _attempt(self, endpoint: Endpoint, body: bytes) -> ChatCompletion | _Fault:
        data = io.BytesIO(body) if len(body) > _LARGE_BODY else body
        url = f"{endpoint.url}/chat/completions"
        try:
            async with self._opened().post(
                url, data=data, headers=_headers(endpoint), allow_redirects=False
            ) as response:
                status, content = response.status, await _body(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Fault(_summary(error), congestion=isinstance(error, TimeoutError))
        if status == 200:
            return _parse(content)
        if status in _REFUSED:
            raise RefusedError(f"HTTP {status}: {_reason(content)}")
        if status in _RETRIED or status >= 500:
            wait = min(_retry_after(response.headers.get("Retry-After")), self.settings.timeout_seconds)
            return _Fault(f"HTTP {status}: {_reason(content)}", status in _CONGESTED, wait)
        raise ConfigurationError(_misconfigured(endpoint, status, content))

    def _adapt(self, endpoint: Endpoint, outcome: ChatCompletion | _Fault, sent_at: float) -> None:
        if isinstance(outcome, ChatCompletion):
            return endpoint.record_reply()
        if outcome.congestion:
            endpoint.record_congestion(sent_at)
        if outcome.retry_after:  # no request goes to this server before
            endpoint.resume_at = time.monotonic() + outcome.retry_after
            asyncio.get_running_loop().call_later(outcome.retry_after, self.wake)

    def _backoff(self, name: Name, attempt: int) -> float:
        """Seconds to wait: doubles with each attempt, and half of it is random."""
        longest = min(self.settings.backoff_seconds * 2**attempt, self.settings.max_backoff_seconds)
        return longest * generator(self.seed, "retry", name, attempt).uniform(0.5, 1)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=self.settings.timeout_seconds, sock_read=self.settings.read_timeout_seconds, sock_connect=30
            )
            # The endpoints limit concurrency, so the connector must not. A local server is never behind a proxy.
            local = all(_is_loopback(endpoint.url) for endpoint in self.endpoints)
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=not local)
        return self._session


def _is_loopback(url: str | None) -> bool:
    return url is None or urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    return headers


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body of a reply. Raises aiohttp.ClientPayloadError if it is too long."""
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > _LONGEST_REPLY:
            raise aiohttp.ClientPayloadError(f"the reply is longer than {_LONGEST_REPLY >> 20} MiB")
    return bytes(content)


def _parse(content: bytes) -> ChatCompletion | _Fault:
    try:
        reply = json.loads(content)
        choices = tuple(map(_choice, sorted(reply["choices"], key=lambda choice: choice.get("index", 0))))
        usage = reply.get("usage") or {}
        ids = reply.get("prompt_token_ids")
        completion = ChatCompletion(
            choices, storable(str(reply.get("model", ""))),
            _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"),
            tuple(ids) if isinstance(ids, list) else None,
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return _Fault(f"a reply that is not a chat completion ({type(error).__name__}: {error}): {_reason(content)}")
    return completion if choices else _Fault(f"a reply without choices: {_reason(content)}")


def _choice(fields: dict[str, Any]) -> Choice:
    text = fields["message"].get("content") or ""
    if not isinstance(text, str):
        raise TypeError("the content is not a text")
    reason = str(fields.get("finish_reason"))
    if reason in _WITHHELD:
        return Choice(f"the server withheld the reply: {reason}", 0, "error")
    ids = fields.get("token_ids")
    return Choice(storable(text), len(ids) if isinstance(ids, list) else None, _FINISHED[reason])


def _count(usage: dict[str, object], name: str) -> int | None:
    """A number of tokens, or None if the reply has no valid one."""
    count = usage.get(name)
    return count if type(count) is int and 0 <= count < 2**31 else None


def _reason(content: bytes) -> str:
    """The server's error message, shortened. It is read from OpenAI's form of an error if the reply has this form."""
    text = content[:20_000].decode(errors="replace")
    try:
        reply = json.loads(text)
        error = reply.get("error", reply)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        pass
    text = storable(" ".join(text.split()))
    return f"{text[:300]}..." if len(text) > 300 else text or "an empty reply"


def _misconfigured(endpoint: Endpoint, status: int, content: bytes) -> str:
    fix = _FIXES.get(status, "check the URL and the server")
    return f"{endpoint.url}: HTTP {status} ({_reason(content)}); {fix}"


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3: a number or a date); 0 without a valid value."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
