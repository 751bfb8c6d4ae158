"""A chat completion server that answers what it is told and fails where it is told: ``python -m`` this file.

``--faults '{"REGEX": ["429", "500", "half"]}'``: requests whose user text matches meet these faults one after the
other, then are answered. ``--replies '{"REGEX": "TEMPLATE"}'``: the first match in that text, expanded, is the reply;
else it names model, seed, and a hash of the turn. It prints its port, and ends with its standard input.

Faults: a status such as ``500``, with Retry-After as ``429:0.5``; ``garbage`` (no JSON), ``empty`` (no choices),
``half`` (the body ends early), ``reset`` (connection closed), ``hang`` (no byte, ever), ``trickle`` (a byte now and
then, never the whole), ``slow:SECONDS``, ``fewer`` (one choice whatever n says), ``filtered`` (every choice is),
``die`` (the process ends).
``GET /stats`` tells what was asked.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

ROOT = Path(__file__).resolve().parents[2]


class Stub:
    """Counts requests; ``busy`` above ``--at-once`` is answered 429."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.faults = {pattern: iter(faults) for pattern, faults in json.loads(options.faults).items()}
        self.replies: dict[str, str] = json.loads(options.replies)
        self.busy = self.most = self.refused = 0
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.options.model}]})

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"requests": len(self.times), "most": self.most, "refused": self.refused, "bodies": self.bodies,
             "times": self.times}
        )  # fmt: skip

    async def complete(self, request: web.Request) -> web.StreamResponse:
        if self.options.key and request.headers.get("Authorization") != f"Bearer {self.options.key}":
            return _error(401, "no such key")
        self.times.append(asyncio.get_running_loop().time())
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            if self.busy > self.options.at_once:
                self.refused += 1
                return _error(429, "too many")
            return await self._answered(request)
        finally:
            self.busy -= 1

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if self.options.keep:
            self.bodies.append(body)
        text = _text(body)
        fault = self._fault(text)
        if fault.startswith("slow:"):
            await asyncio.sleep(float(fault[5:]))
        elif fault and fault not in ("fewer", "filtered"):
            return await _fail(request, fault, self.options.words)
        if self.options.managed and self.options.managed["max_batch"] > self.options.room:
            _run_out_of_memory()
        await asyncio.sleep(self.options.latency)
        reply = self._reply(body, text, 1 if fault == "fewer" else body.get("n", 1))
        if fault == "filtered":
            reply["choices"] = [{**choice, "finish_reason": "content_filter"} for choice in reply["choices"]]
        return web.json_response(reply)

    def _fault(self, text: str) -> str:
        for pattern, faults in self.faults.items():
            if re.search(pattern, text, re.DOTALL):
                return next(faults, "")
        return ""

    def _reply(self, body: dict[str, Any], text: str, n: int) -> dict[str, Any]:
        turn = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:8]
        texts = [f"{self.options.model} {body.get('seed', 0) + k} {turn} Answer: 1" for k in range(n)]
        for pattern, template in self.replies.items():
            if found := re.search(pattern, text, re.DOTALL):
                texts = [found.expand(template)] * n
                break
        choices = [
            {"index": k, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for k, text in enumerate(texts)
        ]
        off = body.get("chat_template_kwargs", {}).get("enable_thinking") is False
        length = len(text) + (4 if self.options.thinks and off else 0)  # of an empty thought
        usage = {"prompt_tokens": length, "completion_tokens": sum(map(len, texts))}
        return {"id": "x", "object": "chat.completion", "model": self.options.model, "choices": choices, "usage": usage}


def _text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _error(status: int, message: str, **headers: str) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


def _run_out_of_memory() -> None:
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", file=sys.stderr)
    print("what else it says\n" * 40, file=sys.stderr, flush=True)
    os._exit(1)


async def _fail(request: web.Request, fault: str, words: str) -> web.StreamResponse:
    if fault == "die":
        os._exit(1)
    if fault == "garbage":
        return web.Response(body=b"\xff<html>busy</html>", content_type="text/html")
    if fault == "empty":
        return web.json_response({"choices": []})
    if fault[0].isdigit():
        status, _, wait = fault.partition(":")
        return _error(int(status), words or f"told to answer {status}", **({"Retry-After": wait} if wait else {}))
    if fault in ("half", "trickle"):
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"choices": [{"index": 0, "mess')
        while fault == "trickle":
            await response.write(b" ")
            await asyncio.sleep(0.05)
    elif fault == "hang":
        await asyncio.sleep(3600)
    assert request.transport is not None
    request.transport.close()  # half and reset
    return web.Response()


@contextmanager
def stub_server(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(base URL, process) of a server with these options, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", process
    finally:
        process.kill()
        process.communicate()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


async def _serve(options: argparse.Namespace) -> None:
    stub = Stub(options)
    app = web.Application(client_max_size=2**30)
    app.add_routes(
        [
            web.get("/v1/models", stub.models), web.get("/stats", stub.stats), web.get("/health", stub.health),
            web.post("/v1/chat/completions", stub.complete),
        ]
    )  # fmt: skip
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    port = runner.addresses[0][1]
    if options.managed:
        scratch = Path(options.managed["address"] + ".partial")
        scratch.write_text(json.dumps({"port": port, "stop_ids": []}))
        scratch.rename(options.managed["address"])
    print(port, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--model", default="stub")
    parser.add_argument("--key", default="")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument("--at-once", type=int, default=10**9, help="more requests in flight are answered 429")
    parser.add_argument("--faults", default="{}")
    parser.add_argument("--words", default="", help="what a fault with a status says")
    parser.add_argument("--replies", default="{}")
    parser.add_argument("--keep", action="store_true", help="remember the bodies for /stats")
    parser.add_argument("--thinks", action="store_true", help="the template has a switch of thinking")
    parser.add_argument("--refuse", default="", help="why a managed server refuses its task")
    parser.add_argument("--room", type=int, default=10**9, help="a managed server of a larger batch dies at work")
    parser.add_argument("--room-to-start", type=int, default=10**9, help="or while it starts")
    parser.add_argument("--managed", action="store_true", help="key and place of the address come as a line of input")
    options = parser.parse_args()
    options.managed = json.loads(sys.stdin.readline()) if options.managed else {}
    if refusal := options.managed and options.refuse:
        Path(options.managed["address"]).write_text(json.dumps({"refused": refusal}))
        return
    if options.managed and options.managed["max_batch"] > options.room_to_start:
        _run_out_of_memory()
    options.key = options.managed.get("key", options.key)
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
