"""Servers of our own: vLLM's API server on a checkpoint, one a GPU, watched and restarted behind one client."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench.engines.base import Reading
from bench.engines.client import Endpoint
from bench.engines.openai import Chat, MessagePreparer, template_switch
from bench.engines.vllm_server import MODEL
from bench.errors import ConfigurationError
from bench.prompts import Part
from vold.config import Execution
from vold.files import cache_root
from vold.rollout.base import EngineError
from vold.rollout.remote import server_environment

_PROGRAM = (sys.executable, "-m", "bench.engines.vllm_server")
_POLL_SECONDS = 0.2
_HEALTH_EVERY_SECONDS = 10.0
_HEALTH_TIMEOUT_SECONDS = 120.0


class ServerProcess:
    """One running server: ``url`` and ``stop_ids`` once it is healthy. Output goes to ``log``, after what is there.

    Raises ValueError where the server refuses its task, EngineError where it does not come up in time.
    """

    def __init__(
        self, task: Mapping[str, Any], gpu: str | None, log: Path, timeout_seconds: float,
        program: Sequence[str] = _PROGRAM,
    ) -> None:  # fmt: skip
        self.log = log
        self._deadline = time.monotonic() + timeout_seconds
        environment = server_environment() | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                env=environment, start_new_session=True,
            )  # fmt: skip
        try:
            with tempfile.TemporaryDirectory(prefix="vold-server-") as scratch:
                started = self._address(task, Path(scratch) / "address")
            self.url = f"http://127.0.0.1:{started['port']}/v1"
            self.stop_ids: list[int] = started["stop_ids"]
            while not self.is_healthy(5.0):
                self._wait("answer")
        except BaseException:
            self.close()
            raise

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def is_healthy(self, timeout_seconds: float) -> bool:
        """Whether the server answers and its engine lives."""
        try:
            with urlopen(self.url.removesuffix("/v1") + "/health", timeout=timeout_seconds) as reply:
                return reply.status == 200
        except (URLError, OSError):
            return False

    def close(self) -> None:
        """Kill the server and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def _address(self, task: Mapping[str, Any], address: Path) -> dict[str, Any]:
        """Hand the task over and wait until the server says where it listens."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended: seen below
            # The pipe stays open: the server ends when it closes.
            self.process.stdin.write(json.dumps({**task, "address": str(address)}).encode() + b"\n")
            self.process.stdin.flush()
        while not address.exists():
            self._wait("start")
        started = json.loads(address.read_text(encoding="utf-8"))
        if "refused" in started:
            raise ValueError(started["refused"])
        return started

    def _wait(self, what: str) -> None:
        if not self.is_alive():
            raise EngineError(f"the server ended with code {self.process.returncode}; {self.last_words()}")
        if time.monotonic() > self._deadline:
            raise EngineError(f"the server did not {what} in time; {self.last_words()}")
        time.sleep(_POLL_SECONDS)

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join([f"the end of {self.log}:", *lines])


class Replica:
    """A server that is watched: while it is dead its ``endpoint`` is down, and another is started in its place.

    ``restarts`` bounds those in a row that answered nothing; after them ``lost`` says why. on_change is called from
    another thread whenever the endpoint goes up or is lost.
    """

    def __init__(self, start: Callable[[], ServerProcess], endpoint: Endpoint, restarts: int) -> None:
        self.start, self.endpoint, self.restarts = start, endpoint, restarts
        self.lost = ""
        self.server = start()
        endpoint.url = self.server.url
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, on_change: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._supervise, args=(on_change,), name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self.server.close()
        if self._thread is not None:
            self._thread.join()
        self.server.close()  # one that was being started

    def _supervise(self, on_change: Callable[[], None]) -> None:
        left, answered = self.restarts, self.endpoint.answered
        while not self._ended():
            self.endpoint.url = None
            self.server.close()
            if self.endpoint.answered > answered:
                left, answered = self.restarts, self.endpoint.answered
            try:
                if left == 0:
                    raise EngineError(f"the server ended {self.restarts + 1} times; {self.server.last_words()}")
                left -= 1
                self.server = self.start()
                self.endpoint.url = self.server.url
            except (EngineError, ValueError, OSError) as error:
                if left == 0:
                    self.lost = str(error)
                    return on_change()
            else:
                on_change()

    def _ended(self) -> bool:
        """Wait until the server is dead (False), or no longer wanted (True)."""
        asked = time.monotonic()
        while not self._ending.wait(_POLL_SECONDS):
            if not self.server.is_alive():
                return False
            if time.monotonic() - asked > _HEALTH_EVERY_SECONDS:
                if not self.server.is_healthy(_HEALTH_TIMEOUT_SECONDS):
                    return False
                asked = time.monotonic()
        return True


class Served(Chat):
    """Implements ``Engine`` with vLLM servers on ``checkpoint``: one a GPU, or as ``execution.vllm.replicas`` says.

    What a dying server was asked goes to the others, or waits until it is up again. Raises ValueError where vLLM is
    absent or refuses the checkpoint, EngineError where a server cannot start. Logs lie in ``logs``, else under
    VOLD_BENCH_CACHE.
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
        shared = {"memory_share": execution.evaluation.memory_share}  # nothing else is on the GPU
        task = {
            "checkpoint": str(checkpoint.resolve()), "settings": settings.model_dump() | shared,
            "dtype": execution.dtype, "device": "cpu" if gpus[0] is None else "cuda",
            "max_batch": execution.rollout_batch, "key": key, "pixel_limits": pixel_limits,
        }  # fmt: skip
        logs = logs or cache_root() / "servers" / str(os.getpid())
        logs.mkdir(parents=True, exist_ok=True)
        image_id, factor = _pictures(checkpoint)

        def replica(number: int) -> Replica:
            log = logs / f"server-{number}.log"
            endpoint = Endpoint(None, key, execution.client)
            return Replica(
                lambda: ServerProcess(task, gpus[number], log, settings.timeout_seconds, program),
                endpoint,
                settings.restarts,
            )

        self.replicas = _all_or_none(replica, len(gpus))
        self._computing = {"package": _package(), "device": task["device"], "dtype": execution.dtype}
        stop_ids = self.replicas[0].server.stop_ids
        whole = {"top_k": 0, "repetition_penalty": 1.0}  # the model's own distribution
        extra = {"return_token_ids": True, "stop_token_ids": stop_ids, **whole, **template_switch(thinking)}
        super().__init__(
            [replica.endpoint for replica in self.replicas], MODEL, execution.client,
            MessagePreparer(pixel_limits, factor), name="vllm_server", extra=extra, image_id=image_id,
        )  # fmt: skip
        for each in self.replicas:
            each.watch(self._changed)

    def read(self, parts: Sequence[Part]) -> Reading | None:
        from bench.engines.encoding import EncodingPreparer

        return EncodingPreparer(self.checkpoint, self.pixel_limits, self.thinking).read(parts)

    def about(self) -> dict[str, Any]:
        return {**super().about(), **self._computing, "replicas": len(self.replicas)}

    def close(self) -> None:
        for each in self.replicas:
            each.close()
        super().close()

    def _changed(self) -> None:
        if all(replica.lost for replica in self.replicas):
            self.client.lost = self.replicas[0].lost
        self._background.loop.call_soon_threadsafe(self.client.wake)


def _package() -> str:
    """Name and version of the installed vLLM, whichever build it is."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "vllm"


def _pictures(checkpoint: Path) -> tuple[int | None, int]:
    """(token that stands for pictures, patch size times merge size)."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    vision = config.get("vision_config", {})
    return config.get("image_token_id"), vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)


def _all_or_none(make: Callable[[int], Replica], number: int) -> list[Replica]:
    """Make them side by side; where one fails, close the others."""
    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(make, index) for index in range(number)]
    failed = [error for future in futures if (error := future.exception())]
    if failed:
        for future in futures:
            if future.exception() is None:
                future.result().close()
        raise failed[0]
    return [future.result() for future in futures]


def _gpus(execution: Execution) -> list[str | None]:
    """The GPU of each server, as CUDA_VISIBLE_DEVICES names it; None where they run on the CPU."""
    import torch

    count = 0 if execution.device == "cpu" else torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found: list[str | None] = list(listed.split(",")[:count] if listed else map(str, range(count))) or [None]
    wanted = execution.vllm.replicas or len(found)
    if found == [None]:
        return found * wanted
    if wanted > len(found):
        raise ConfigurationError(f"execution.vllm.replicas: {wanted}, but this process sees {len(found)} GPUs")
    return found[:wanted]
