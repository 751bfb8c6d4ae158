"""The processes (ranks) that share one training stage on this machine. They start together and end together.

Each rank is a fresh interpreter that reads its number from environment variables (``vold.distributed``). The ranks find
each other through a file and communicate over the loopback interface, so no port is open to other machines.
"""

import importlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from bench.errors import ErrorClass, StageError, classify, describe
from vold.execution import Execution
from vold.files import DiskFullError, is_disk_full
from vold.processes import end_with_parent, received
from vold.training.progress import Progress

_GRACE_SECONDS = 1.0
_RankPipe = tuple[BaseProcess, connection.Connection]


def distribute(execution: Execution, work: str, arguments: tuple[object, ...], logs: Path, progress: Progress) -> bool:
    """Run ``work`` on several ranks if ``execution`` asks for them and this process is not one of them.

    Returns False if the caller has to do the work itself. The other parameters are those of ``run_on_ranks``.
    """
    if execution.processes == 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return False
    run_on_ranks(execution.processes, work, arguments, logs, progress)
    return True


def main_rank() -> bool:
    """Whether this process writes files and shows progress; true as well when there is only one process."""
    return os.environ.get("RANK", "0") == "0"


def run_on_ranks(processes: int, work: str, arguments: tuple[object, ...], logs: Path, progress: Progress) -> None:
    """Call a function with ``arguments`` and a progress callback on each of ``processes`` ranks.

    work: the function, as ``module:name``.
    logs: the directory for the output of ranks 1, 2, ... (``rank-K.log``). Rank 0 shares this process's output.
    progress: receives the progress of rank 0.

    When one rank fails or dies the others are ended. Then its error is raised: StageError with the rank's error class,
    or DiskFullError.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="vold-bench-ranks-") as directory:
        rendezvous = f"file://{directory}/ranks"
        ranks: list[_RankPipe] = []
        try:
            for number in range(processes):
                receiver, sender = context.Pipe(duplex=False)
                rank = _Rank(number, processes, rendezvous, logs / f"rank-{number}.log" if number else None)
                name = f"rank {number}"
                process = context.Process(target=_run_rank, args=(rank, work, arguments, sender), name=name)
                process.start()
                sender.close()
                ranks.append((process, receiver))
            _wait(ranks, progress)
        finally:
            for process, _ in ranks:
                process.kill()
                process.join()


def _wait(ranks: list[_RankPipe], progress: Progress) -> None:
    """Pass progress on until every rank has ended well; otherwise raise the error of the rank that failed first.

    The first message with an error is the cause: other ranks fail later, when their connections to that rank close.
    A killed rank sends no message, so before an error is raised, the ranks get a moment to show that one was killed.
    """
    while running := [(process, pipe) for process, pipe in ranks if process.exitcode is None]:
        open_pipes = [pipe for _, pipe in running if not pipe.closed]
        connection.wait([*(process.sentinel for process, _ in running), *open_pipes])
        try:
            for _, pipe in ranks:
                _read_messages(pipe, progress)
        except Exception:
            _raise_death(_wait_for_killed([process for process, _ in ranks]))
            raise
        _raise_death([process for process, _ in ranks if process.exitcode])


def _wait_for_killed(processes: list[BaseProcess]) -> list[BaseProcess]:
    """The processes that a signal ended. Waits briefly, because a process closes its connections before it is gone."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline:
        if killed := [process for process in processes if (process.exitcode or 0) < 0]:
            return killed
        time.sleep(0.02)
    return []


def _raise_death(dead: list[BaseProcess]) -> None:
    for process in dead:
        raise StageError(ErrorClass.INFRASTRUCTURE, _cause_of_death(process))


def _cause_of_death(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        return f"{process.name} was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"{process.name} ended with code {code}; see its log"


def _read_messages(pipe: connection.Connection, progress: Progress) -> None:
    """Pass on the progress and log records that have arrived; raise the error if there is one."""
    for kind, *values in received(pipe):
        if kind == "progress":
            progress(*values)
        elif kind == "log":
            name, level, message = values
            logging.getLogger(name).log(level, "%s", message)
        else:
            error, message, disk_full = values
            raise DiskFullError(message) if disk_full else StageError(ErrorClass(error), message)


@dataclass(frozen=True, slots=True)
class _Rank:
    """One of ``world`` processes. ``log``: the file for its output; None: the output of the launcher."""

    number: int
    world: int
    rendezvous: str
    log: Path | None

    def enter(self) -> None:
        """Set this process up as the rank: its environment, its output, and its end with the launcher."""
        from vold.distributed import RENDEZVOUS

        # Ctrl-C reaches the launcher, which ends its ranks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent(group=False)
        number, loopback = str(self.number), _loopback()
        os.environ.update({"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": str(self.world)})
        os.environ.update({RENDEZVOUS: self.rendezvous, "GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback})
        if self.log is not None:
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)


def _loopback() -> str:
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")


def _run_rank(rank: _Rank, work: str, arguments: tuple[object, ...], sender: connection.Connection) -> None:
    """The body of a rank's process."""
    rank.enter()

    def progress(done: int, total: int, metrics: dict[str, float]) -> None:
        if rank.number == 0:
            sender.send(("progress", done, total, metrics))

    if rank.number == 0:
        logging.getLogger("vold").addHandler(_LogRelay(sender))
    try:
        module, _, name = work.partition(":")
        getattr(importlib.import_module(module), name)(*arguments, progress)
    except Exception as error:
        sender.send(("error", classify(error).value, describe(error), is_disk_full(error)))
        if rank.log is not None or os.environ.get("VOLD_BENCH_DEBUG"):
            traceback.print_exc()
        sys.exit(classify(error).exit_code)


class _LogRelay(logging.Handler):
    """Sends warnings to the launcher, because only the launcher writes to the terminal."""

    def __init__(self, sender: connection.Connection) -> None:
        super().__init__(logging.WARNING)
        self.sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send(("log", record.name, record.levelno, record.getMessage()))
