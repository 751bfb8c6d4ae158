"""A server in a process of its own: how it is started, told its task and ended, and the program's side of the same.

The task is the first line of the program's standard input. Where it listens, or why it never will, the program writes
to the task's ``address``. Its input stays open: when it closes, however its parent ended, the program ends with every
process that it started.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vold.files import cache_root, write_whole
from vold.out_of_memory import kernel_kills, mentions_out_of_memory
from vold.processes import end_with_parent
from vold.rollout.base import EngineError

_POLL_SECONDS = 0.1
_LAST_LINES = 15
_LONGEST = 300
_LOST_A_CHILD = re.compile(r"(died|exited) unexpectedly")
"""What vLLM's server says of a process of its own that is gone."""
# How a launcher describes the ranks to one another; a server is none of them.
_RANKS = {
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip


class ServerProcess:
    """A server that was started with ``task``; ``told`` is what it wrote to its address.

    log: its output goes there, after what is there. gpu: the only one it sees; None: what this process sees. ending:
    set from another thread when it is no longer wanted. Raises ValueError where it refuses its task, EngineError where
    it ends, does not start in time or is no longer wanted.
    """

    def __init__(
        self,
        program: Sequence[str],
        task: Mapping[str, Any],
        log: Path,
        timeout_seconds: float,
        gpu: str | None = None,
        ending: threading.Event | None = None,
    ) -> None:
        self.log, self.timeout_seconds = log, timeout_seconds
        self._ending = ending or threading.Event()
        self._deadline = time.monotonic() + timeout_seconds
        self._kills = kernel_kills()
        with log.open("ab") as output:
            self._begin = output.tell()
            self.process = subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=environment(gpu),
                start_new_session=True,
            )  # fmt: skip
        try:
            with tempfile.TemporaryDirectory(prefix="vold-server-") as scratch:
                self.told = self._hand_over(task, Path(scratch) / "address")
        except BaseException:
            self.close()
            raise

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it did ``what``.

        Raises EngineError where it ends before, is no longer wanted, or time is up since it was started.
        """
        while not holds():
            if not self.is_alive():
                raise self.failure(f"ended with code {self.process.returncode}")
            if time.monotonic() > self._deadline:
                raise self.failure(f"did not {what} within {self.timeout_seconds:g} s (execution.vllm.timeout_seconds)")
            if self._ending.wait(_POLL_SECONDS):
                raise self.failure("is no longer wanted")

    def failure(self, what: str) -> EngineError:
        """The server ``what``: with its last words, and those by which it told that memory ran out.

        A process that the kernel killed for want of memory leaves none; the kernel's own count speaks for it. To be
        called before ``close``, which kills a process, too.
        """
        with self.log.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").splitlines()
        was_killed = self.process.poll() == -signal.SIGKILL or any(map(_LOST_A_CHILD.search, lines))
        if was_killed and kernel_kills() > self._kills:
            lines.append("Out of memory: the kernel has killed a process")
        memory = next((f" ({line.strip()[:_LONGEST]})" for line in lines if mentions_out_of_memory(line)), "")
        return EngineError("\n".join([f"the server {what}{memory}; the end of {self.log}:", *lines[-_LAST_LINES:]]))

    def close(self) -> None:
        """Kill the server and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def _hand_over(self, task: Mapping[str, Any], address: Path) -> dict[str, Any]:
        """Tell the task and wait until the server answers."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended: seen below
            self.process.stdin.write(json.dumps({**task, "address": str(address)}).encode() + b"\n")
            self.process.stdin.flush()
        self.wait_until(address.exists, "start")
        told = json.loads(address.read_text(encoding="utf-8"))
        if "refused" in told:
            raise ValueError(told["refused"])
        return told


def environment(gpu: str | None) -> dict[str, str]:
    """That of a server: this process's, without the ranks of a launcher, and with one GPU if it is to see one alone."""
    inherited = {name: value for name, value in os.environ.items() if name not in _RANKS}
    return inherited if gpu is None else inherited | {"CUDA_VISIBLE_DEVICES": gpu}


def gpu_name(index: int) -> str:
    """This process's GPU ``index`` as CUDA_VISIBLE_DEVICES names it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[index] if visible else str(index)


def log_directory() -> Path:
    """Where the servers that this process starts write their logs; made where it is absent."""
    directory = cache_root() / "servers" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def receive_task() -> dict[str, Any]:
    """In the program: its task. From now on it ends when its standard input closes."""
    task = json.loads(sys.stdin.buffer.readline())
    end_with_parent(group=True)
    return task


def tell(task: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """In the program: what whoever started it waits for; ``refused`` is why it will never serve."""
    write_whole(Path(task["address"]), json.dumps(told))
