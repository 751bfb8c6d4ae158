"""Servers in their own processes, with small programs: how they start, refuse, fail and end."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vold.out_of_memory import is_out_of_memory
from vold.rollout.base import EngineError
from vold.rollout.process import ServerProcess, gpu_name, log_directory, server_environment

CHILD = """
import subprocess, sys, time
from vold.rollout.process import receive_task, send_reply
task = receive_task()
child = subprocess.Popen(["sleep", "60"])
send_reply(task, {"child": child.pid, "word": task["word"]})
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    servers: list[ServerProcess] = []

    def started(*program: str, timeout_seconds: float = 30) -> ServerProcess:
        servers.append(ServerProcess(program, {"word": "hello"}, tmp_path / "log", timeout_seconds))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


def is_gone(pid: int) -> bool:
    """Whether a process has ended. A zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def gone_in_time(pid: int) -> bool:
    end = time.monotonic() + 10
    while not is_gone(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return is_gone(pid)


def test_a_program_gets_its_task_and_ends_with_all_that_it_started(start: Callable[..., ServerProcess]) -> None:
    server = start(sys.executable, "-c", CHILD)
    assert server.reply["word"] == "hello" and server.is_alive() and not is_gone(server.reply["child"])
    server.close()
    assert gone_in_time(server.process.pid) and gone_in_time(server.reply["child"])


def test_a_program_and_all_that_it_started_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from vold.rollout.process import ServerProcess\n"
        "program = [sys.executable, '-c', sys.argv[1]]\n"
        "server = ServerProcess(program, {'word': 'hello'}, Path(sys.argv[2]), 30)\n"
        "print(server.process.pid, server.reply['child'], flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, CHILD, str(tmp_path / "log")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and not any(map(is_gone, pids))
    parent.kill()
    parent.communicate()
    assert all(map(gone_in_time, pids))


def test_a_refusal_of_the_task_is_a_value_error(start: Callable[..., ServerProcess]) -> None:
    code = (
        "from vold.rollout.process import receive_task, send_reply\n"
        "send_reply(receive_task(), {'refused': 'no such model'})"
    )
    with pytest.raises(ValueError, match="no such model"):
        start(sys.executable, "-c", code)


def test_the_error_of_a_program_that_ends_has_the_end_of_its_own_log(
    start: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("torch.OutOfMemoryError: of a server before\n")
    with pytest.raises(EngineError, match=r"ended with code 3; the end of .*log:\nlast words") as caught:
        start("sh", "-c", "read task; echo last words; exit 3")
    assert "before" not in str(caught.value) and not is_out_of_memory(caught.value)
    assert (tmp_path / "log").read_text().endswith("before\nlast words\n")


def test_lack_of_memory_is_reported_even_if_many_lines_follow_it(start: Callable[..., ServerProcess]) -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    with pytest.raises(
        EngineError, match=r"ended with code 1 \(torch\.OutOfMemoryError: CUDA out of .*\); the"
    ) as caught:
        start("sh", "-c", f"read task; echo '{line}'; seq 100; exit 1")
    assert is_out_of_memory(caught.value) and str(caught.value).endswith("\n99\n100")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the number of processes that the kernel reports to have killed."""
    counters = tmp_path / "vmstat"
    monkeypatch.setattr("vold.out_of_memory._COUNTERS", counters)

    def count(kills: int) -> None:
        counters.write_text(f"pgfault 12\noom_kill {kills}\n")

    count(4)
    return count


def test_a_kill_by_the_kernel_for_lack_of_memory_is_reported_as_such(
    start: Callable[..., ServerProcess], kernel: Callable[[int], None]
) -> None:
    server = start(sys.executable, "-c", CHILD)
    server.process.kill()
    server.process.wait()
    assert not is_out_of_memory(server.failure("ended with code -9")), "somebody else killed it"
    kernel(5)
    failure = server.failure("ended with code -9")
    assert is_out_of_memory(failure) and "the kernel has killed a process" in str(failure)


def test_a_kill_of_another_process_does_not_explain_a_failure(
    start: Callable[..., ServerProcess], kernel: Callable[[int], None]
) -> None:
    server = start(sys.executable, "-c", CHILD)
    kernel(5)
    assert not is_out_of_memory(server.failure("does not answer"))
    loser = start(
        sys.executable, "-c", CHILD.replace("child =", "print('Worker proc died unexpectedly', flush=True); child =")
    )
    assert not is_out_of_memory(loser.failure("does not answer")), "its process died of something else"
    kernel(6)
    assert is_out_of_memory(loser.failure("does not answer"))


def test_a_program_that_never_starts_is_ended(start: Callable[..., ServerProcess]) -> None:
    with pytest.raises(EngineError, match=r"did not start within 0\.3 s \(execution\.vllm\.timeout_seconds\)"):
        start("sh", "-c", "read task; exec sleep 60", timeout_seconds=0.3)


def test_a_server_is_not_a_rank_and_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "host", "CUDA_VISIBLE_DEVICES": "4,6"}.items():
        monkeypatch.setenv(name, value)
    variables = server_environment(gpu_name(1))
    assert variables["CUDA_VISIBLE_DEVICES"] == "6" and variables["PATH"] == os.environ["PATH"]
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & variables.keys()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert server_environment(gpu_name(1))["CUDA_VISIBLE_DEVICES"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in server_environment(None)


def test_logs_are_in_the_cache_by_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path))
    assert log_directory() == tmp_path / "servers" / str(os.getpid()) and log_directory().is_dir()
