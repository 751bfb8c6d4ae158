"""A server in a process of its own: how the parent starts and ends it, and the program's side of the protocol.

The task is the first line of the program's standard input. The program writes its reply, such as the port where it
listens or the reason why it refuses, to the file that the task names as ``address``. Its input stays open until its
parent ends; the program then ends with all processes that it started.
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

from vold.files import JsonObject, cache_root, write_whole
from vold.out_of_memory import kernel_kills, mentions_out_of_memory
from vold.processes import end_with_parent
from vold.rollout.base import EngineError

_POLL_SECONDS = 0.1
_LAST_LINES = 15
_LINE_LENGTH = 300
_LOST_A_CHILD = re.compile(r"(died|exited) unexpectedly")
"""The message of vLLM's server when one of its own processes has ended."""
# Variables by which a launcher numbers its ranks. A server is not one of the ranks.
_RANKS = {
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip


class ServerProcess:
    """A running server. reply: what it answered to its task.

    task: settings for the program, as JSON. log: file to which its output is appended. gpu: the only GPU that it sees;
    None for those that this process sees. ending: an event that another thread sets when the server is no longer
    needed. Raises ValueError if the program refuses its task, and EngineError if it ends, does not start in time or is
    no longer needed.
    """

    def __init__(
        self,
        program: Sequence[str],
        task: Mapping[str, object],
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
                program, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=server_environment(gpu),
                start_new_session=True,
            )  # fmt: skip
        try:
            with tempfile.TemporaryDirectory(prefix="vold-server-") as scratch:
                self.reply = self._send_task(task, Path(scratch) / "address")
        except BaseException:
            self.close()
            raise

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], bool], action: str) -> None:
        """Wait until ``condition`` holds. action: what the server has to do for that, for the error.

        Raises EngineError if the server ends, is no longer needed, or exceeds its time since it was started.
        """
        while not condition():
            if not self.is_alive():
                raise self.failure(f"ended with code {self.process.returncode}")
            if time.monotonic() > self._deadline:
                raise self.failure(
                    f"did not {action} within {self.timeout_seconds:g} s (execution.vllm.timeout_seconds)"
                )
            if self._ending.wait(_POLL_SECONDS):
                raise self.failure("is no longer needed")

    def failure(self, predicate: str) -> EngineError:
        """The error "the server ``predicate``", with the end of its log and any message that memory ran out.

        A process that the kernel killed for lack of memory leaves no message. The kernel's count of such kills shows
        it. Call this before ``close``, which kills the process as well.
        """
        with self.log.open("rb") as log:
            log.seek(self._begin)
            lines = log.read().decode(errors="replace").splitlines()
        was_killed = self.process.poll() == -signal.SIGKILL or any(map(_LOST_A_CHILD.search, lines))
        if was_killed and kernel_kills() > self._kills:
            lines.append("Out of memory: the kernel has killed a process")
        memory = next((f" ({line.strip()[:_LINE_LENGTH]})" for line in lines if mentions_out_of_memory(line)), "")
        return EngineError(
            "\n".join([f"the server {predicate}{memory}; the end of {self.log}:", *lines[-_LAST_LINES:]])
        )

    def close(self) -> None:
        """Kill the server and every process that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()

    def _send_task(self, task: Mapping[str, object], address: Path) -> JsonObject:
        """Send the task and wait for the reply."""
        assert self.process.stdin is not None
        with suppress(OSError):  # if it has ended, wait_until reports it
            self.process.stdin.write(json.dumps({**task, "address": str(address)}).encode() + b"\n")
            self.process.stdin.flush()
        self.wait_until(address.exists, "start")
        reply = json.loads(address.read_text(encoding="utf-8"))
        if "refused" in reply:
            raise ValueError(reply["refused"])
        return reply


def server_environment(gpu: str | None) -> dict[str, str]:
    """The environment of a server: that of this process, without a launcher's ranks, and with a single GPU if given."""
    inherited = {name: value for name, value in os.environ.items() if name not in _RANKS}
    return inherited if gpu is None else inherited | {"CUDA_VISIBLE_DEVICES": gpu}


def gpu_name(index: int) -> str:
    """The name of this process's GPU ``index`` in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[index] if visible else str(index)


def log_directory() -> Path:
    """The directory for the logs of all servers that this process starts. Creates it if necessary."""
    directory = cache_root() / "servers" / str(os.getpid())
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def receive_task() -> JsonObject:
    """In the server program: its task. From now on, the program ends when its standard input closes."""
    task = json.loads(sys.stdin.buffer.readline())
    end_with_parent(group=True)
    return task


def send_reply(task: JsonObject, reply: Mapping[str, object]) -> None:
    """In the server program: send the reply to its task. The key ``refused`` holds the reason why it will not serve."""
    write_whole(Path(task["address"]), json.dumps(reply))
