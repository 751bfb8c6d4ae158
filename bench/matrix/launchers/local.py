"""The launcher for this machine: every stage is a process of its own.

The processes are forked from a server that has imported the heavy libraries once. A stage whose launcher is gone, even
through kill -9, ends itself with its workers, so nothing continues to train unnoticed.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from bench.errors import ErrorClass, classify, describe, is_disk_full
from bench.matrix.execute import execute
from bench.matrix.launchers.base import Monitor, Schedule
from bench.matrix.plan import Stage
from bench.matrix.stages import PRELOAD
from bench.store import StageOutcome, StageSpec, Store
from vold.processes import end_with_parent, received

_PROGRESS_EVERY = 0.25
_BY_EXIT_CODE = {error.exit_code.value: error for error in ErrorClass}


@dataclass(frozen=True, slots=True)
class LocalLauncher:
    """Runs stages as processes of this machine. ``preload``: modules to import once, before any stage is forked."""

    preload: tuple[str, ...] = PRELOAD

    def launch(
        self, stages: Mapping[str, Stage], store: Store, *, slots: int, seconds: Mapping[str, float], monitor: Monitor
    ) -> dict[str, StageOutcome]:
        """Run ``stages`` as ``bench.matrix.launchers.base.Launcher.launch`` says."""
        context = self._context(stages)
        schedule = Schedule(stages, store, seconds, monitor)
        running: dict[str, _Running] = {}
        try:
            while True:
                free = slots - len(running)
                for name in schedule.ready(running)[:free]:
                    running[name] = _start(context, schedule.start(name), store)
                if not running:
                    return schedule.outcomes
                _listen(running, monitor)
                for name in [name for name, run in running.items() if run.process.exitcode is not None]:
                    run = running.pop(name)
                    _pass_on_messages(name, run, monitor)
                    schedule.end(name, *_outcome(run, store))
        finally:
            for run in running.values():
                run.kill()

    def _context(self, stages: Mapping[str, Stage]) -> ForkServerContext:
        """Start the fork server with the number of threads that the stages will use."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *self.preload])
        threads = max((int(stage.spec.execution.get("threads") or 1) for stage in stages.values()), default=1)
        # Thread pools take their size when they are imported, which happens in the server.
        with _environment_variable("OMP_NUM_THREADS", str(threads)):
            forkserver.ensure_running()
        return context


@dataclass(slots=True)
class _Running:
    """A stage's process. ``error``: the error class, message and whether the disk was full, once it has reported."""

    spec: StageSpec
    process: BaseProcess
    pipe: connection.Connection
    error: tuple[ErrorClass, str, bool] | None = None

    def kill(self) -> None:
        """End the process and all processes that it started, and wait for it."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


@contextmanager
def _environment_variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _start(context: ForkServerContext, spec: StageSpec, store: Store) -> _Running:
    store.prepare(spec)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_stage, args=(spec, store, sender), name=spec.id)
    process.start()
    sender.close()
    return _Running(spec, process, receiver)


def _listen(running: Mapping[str, _Running], monitor: Monitor) -> None:
    """Wait up to one second for messages or for the end of a process, and pass the messages on."""
    pipes = [run.pipe for run in running.values() if not run.pipe.closed]
    ready = connection.wait([*pipes, *(run.process.sentinel for run in running.values())], timeout=1.0)
    for name, run in running.items():
        if run.pipe in ready:
            _pass_on_messages(name, run, monitor)
    monitor.tick()


def _pass_on_messages(name: str, run: _Running, monitor: Monitor) -> None:
    """Hand progress to the monitor and keep the error, until the pipe is empty or closed."""
    for kind, *values in received(run.pipe):
        if kind == "progress":
            monitor.progress(name, *values)
        else:
            error, message, disk_full = values
            run.error = (ErrorClass(error), message, disk_full)


def _outcome(run: _Running, store: Store) -> tuple[StageOutcome, bool]:
    """How a process that has ended left its stage, and whether the disk was full."""
    run.process.join()
    run.pipe.close()
    code = run.process.exitcode
    if code == 0 and store.done(run.spec.id):
        return StageOutcome("done"), False
    if run.error is not None:
        error, message, disk_full = run.error
        return StageOutcome("failed", error, message), disk_full
    if code is not None and code < 0:
        hint = "; the kernel does this when memory runs out" if code == -signal.SIGKILL else ""
        return StageOutcome("failed", ErrorClass.INFRASTRUCTURE, f"killed by signal {-code}{hint}"), False
    # 255: the fork server itself is gone.
    error = ErrorClass.INFRASTRUCTURE if code == 255 else _BY_EXIT_CODE.get(code or 0, ErrorClass.FAILED)
    return StageOutcome("failed", error, f"ended with code {code}; see its log"), False


def _run_stage(spec: StageSpec, store: Store, sender: connection.Connection) -> None:
    """The body of a stage's process: output goes to its log, progress and the final error through the pipe."""
    # A process group of its own: Ctrl-C reaches only the launcher, and killing the group ends the stage's workers too.
    os.setpgrp()
    end_with_parent(group=True)
    log = os.open(store.work(spec.id) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    last = 0.0

    def progress(done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last > _PROGRESS_EVERY or done >= total:
            last = time.monotonic()
            sender.send(("progress", done, total, {key: float(value) for key, value in metrics.items()}))

    try:
        execute(spec, store, progress)
    except Exception as error:
        traceback.print_exc()
        kind = classify(error)
        sender.send(("error", kind.value, describe(error), is_disk_full(error)))
        sys.exit(kind.exit_code)
