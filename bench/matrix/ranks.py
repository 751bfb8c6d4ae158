"""The processes that share one training stage on this machine: started together, ended together.

Each is a fresh interpreter that finds its place in the environment (``vold.distributed``). They meet in a file and
talk over the loopback interface, so nothing listens to the outside.
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
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

from bench.errors import ErrorClass, StageError, classify, describe
from vold.config import Execution
from vold.files import DiskFullError, is_disk_full
from vold.processes import end_with_parent

_GRACE = 1.0


def launches(execution: Execution) -> bool:
    """Whether the stage must be handed to ``run_on_ranks``: it wants several processes and this is none of them."""
    return execution.processes > 1 and world() == 1


def world() -> int:
    """How many processes the environment says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def main_rank() -> bool:
    """Whether this process writes and shows things."""
    return os.environ.get("RANK", "0") == "0"


def run_on_ranks(processes: int, work: str, arguments: tuple[Any, ...], logs: Path, progress: Callable) -> None:
    """Call ``work`` (``module:name``) with ``arguments`` and a progress callback on each of ``processes`` ranks.

    Rank 0 reports progress and shares this process's output; the others write to ``logs/rank-K.log``. When one fails
    or dies the others are ended, and its error is raised: StageError of its class, or DiskFullError.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="vold-bench-ranks-") as meeting:
        place = f"file://{meeting}/ranks"
        ranks = []
        try:
            for rank in range(processes):
                receiver, sender = context.Pipe(duplex=False)
                seat = (rank, processes, place, None if rank == 0 else logs / f"rank-{rank}.log")
                process = context.Process(target=_rank, args=(seat, work, arguments, sender), name=f"rank {rank}")
                process.start()
                sender.close()
                ranks.append((process, receiver))
            _wait(ranks, progress)
        finally:
            for process, _ in ranks:
                process.kill()
                process.join()


def _wait(ranks: list[tuple[Any, connection.Connection]], progress: Callable) -> None:
    """Pass progress on until all ranks have ended well; raises the first one's error.

    Whoever fails first is the cause: the others notice only when its connections close, after its message. One that
    was killed says nothing, so a message is held back for a moment to see whether there is one.
    """
    while running := [(process, pipe) for process, pipe in ranks if process.exitcode is None]:
        sources = [source for process, pipe in running for source in (process.sentinel, pipe) if not _shut(source)]
        connection.wait(sources)
        try:
            for _, pipe in ranks:
                _listen(pipe, progress)
        except Exception:
            _raise_death(_killed([process for process, _ in ranks]))
            raise
        _raise_death([process for process, _ in ranks if process.exitcode])


def _killed(processes: list[Any]) -> list[Any]:
    """Those that a signal ended; looks for a moment, as a process closes its connections before it is gone."""
    until = time.monotonic() + _GRACE
    while time.monotonic() < until:
        if dead := [process for process in processes if (process.exitcode or 0) < 0]:
            return dead
        time.sleep(0.02)
    return []


def _raise_death(dead: list[Any]) -> None:
    for process in dead:
        raise StageError(ErrorClass.INFRASTRUCTURE, _how(process))


def _shut(source: Any) -> bool:
    return isinstance(source, connection.Connection) and source.closed


def _listen(pipe: connection.Connection, progress: Callable) -> None:
    try:
        while not pipe.closed and pipe.poll():
            kind, *values = pipe.recv()
            if kind == "progress":
                progress(*values)
                continue
            if kind == "log":
                name, level, message = values
                logging.getLogger(name).log(level, "%s", message)
                continue
            name, message, full = values
            raise DiskFullError(message) if full else StageError(ErrorClass(name), message)
    except (EOFError, ConnectionError):
        pipe.close()


def _how(process: Any) -> str:
    if process.exitcode < 0:
        return f"{process.name} was ended by signal {-process.exitcode} ({signal.Signals(-process.exitcode).name})"
    return f"{process.name} ended with code {process.exitcode}; its log tells more"


def _rank(
    seat: tuple[int, int, str, Path | None], work: str, arguments: tuple[Any, ...], sender: connection.Connection
) -> None:
    """One process: its place in the environment, then the work."""
    from vold.distributed import RENDEZVOUS

    rank, world, place, log = seat
    # Ctrl-C reaches the launcher, which ends its ranks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(group=False)
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), RENDEZVOUS: place})
    os.environ.update({"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback})
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)

    def progress(*values: Any) -> None:
        if rank == 0:
            sender.send(("progress", *values))

    if rank == 0:
        logging.getLogger("vold").addHandler(_Relay(sender))
    try:
        module, _, name = work.partition(":")
        getattr(importlib.import_module(module), name)(*arguments, progress)
    except Exception as error:
        sender.send(("error", classify(error).value, describe(error), is_disk_full(error)))
        if log is not None or os.environ.get("VOLD_BENCH_DEBUG"):
            traceback.print_exc()
        sys.exit(classify(error).exit_code)


class _Relay(logging.Handler):
    """Hands warnings to the launcher, which alone writes to the terminal."""

    def __init__(self, sender: connection.Connection) -> None:
        super().__init__(logging.WARNING)
        self.sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self.sender.send(("log", record.name, record.levelno, record.getMessage()))
