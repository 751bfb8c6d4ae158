"""Stages as processes of this machine, side by side.

Every process is forked from a server that has imported the heavy libraries once. A process that loses its
launcher, even to kill -9, ends itself: nothing goes on training unseen.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import connection, forkserver
from typing import Any, Protocol

from bench.errors import ErrorClass, classify, describe, is_disk_full
from bench.matrix.execute import execute
from bench.matrix.plan import Stage
from bench.matrix.stages import KINDS
from bench.store import StageOutcome, StageSpec, Store

_ATTEMPTS = 2
_PROGRESS_EVERY = 0.25
_BY_EXIT_CODE = {error.exit_code.value: error for error in ErrorClass}
# What may shrink when memory runs out: how work is cut into pieces, never what is computed.
_SHRINKABLE = ("micro_batch_tokens", "rollout_batch")


class Monitor(Protocol):
    """Told of everything that happens; shows it."""

    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None: ...
    def retried(self, stage: str, outcome: StageOutcome) -> None: ...
    def finished(self, stage: str, outcome: StageOutcome) -> None: ...
    def tick(self) -> None: ...


@dataclass(slots=True)
class _Running:
    spec: StageSpec
    process: Any
    pipe: connection.Connection
    error: tuple[str, str, bool] | None = None


@dataclass(slots=True)
class _Schedule:
    """Which stages are ready, by the length of the path that hangs on them."""

    stages: Mapping[str, Stage]
    store: Store
    priority: Mapping[str, float]
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)

    def settle(self) -> list[str]:
        """Mark what cannot run any more and return it."""
        blocked = []
        for name, stage in self.stages.items():
            bad = next((n for n in stage.needs if n in self.outcomes and self.outcomes[n].state != "done"), None)
            if name not in self.outcomes and bad is not None:
                self.outcomes[name] = StageOutcome("blocked", None, f"needs {bad}")
                blocked.append(name)
        return blocked

    def ready(self, running: Mapping[str, Any]) -> list[str]:
        """Stages that may start now, the longest path first."""
        names = [
            name
            for name, stage in self.stages.items()
            if name not in self.outcomes and name not in running and all(self.store.done(n) for n in stage.needs)
        ]
        return sorted(names, key=lambda name: -self.priority.get(name, 0.0))


def longest_paths(stages: Mapping[str, Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """For each stage the seconds of the longest chain that begins with it; ``stages`` are in topological order."""
    paths: dict[str, float] = {}
    for name in reversed(list(stages)):
        after = [paths[other] for other, stage in stages.items() if name in stage.needs and other in paths]
        paths[name] = seconds.get(name, 0.0) + max(after, default=0.0)
    return paths


def launch(
    stages: Mapping[str, Stage], store: Store, *, slots: int, seconds: Mapping[str, float], monitor: Monitor
) -> dict[str, StageOutcome]:
    """Run ``stages`` (in topological order), ``slots`` at a time, and say how each ended.

    A failed stage blocks only its descendants. Failures of the machine are tried once more, out of memory with
    pieces of half the size; a full disk stops new stages, since each would fail. KeyboardInterrupt ends the
    processes and is raised again; everything can be resumed.
    """
    context = _context(stages)
    schedule = _Schedule(stages, store, longest_paths(stages, seconds))
    running: dict[str, _Running] = {}
    attempts: dict[str, int] = {}
    specs = {name: stage.spec for name, stage in stages.items()}
    halted = False
    try:
        while True:
            for name in schedule.settle():
                monitor.finished(name, schedule.outcomes[name])
            for name in () if halted else schedule.ready(running)[: slots - len(running)]:
                attempts[name] = attempts.get(name, 0) + 1
                running[name] = _start(context, specs[name], store)
                monitor.started(name)
            if not running:
                break
            _listen(running, monitor)
            for name in [name for name, run in running.items() if run.process.exitcode is not None]:
                _drain(name, running[name], monitor)
                outcome, full = _end(running.pop(name), store)
                halted = halted or full
                if outcome.error_class and outcome.error_class.retried and not full and attempts[name] < _ATTEMPTS:
                    specs[name] = _again(specs[name], outcome.error_class)
                    monitor.retried(name, outcome)
                else:
                    schedule.outcomes[name] = outcome
                    monitor.finished(name, outcome)
    finally:
        for run in running.values():
            with suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGKILL)
            run.process.kill()
            run.process.join()
    stopped = StageOutcome("stopped", None, "not started: the disk is full")
    return {name: schedule.outcomes.get(name, stopped) for name in stages}


def _context(stages: Mapping[str, Stage]) -> Any:
    context = multiprocessing.get_context("forkserver")
    modules = {name: None for stage in stages.values() for name in KINDS[stage.kind].preload}
    context.set_forkserver_preload([__name__, *modules])
    threads = {int(stage.spec.execution.get("threads") or 1) for stage in stages.values()}
    # Thread pools size themselves at import, which happens in the server: it starts with the final number.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(threads, default=1))
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return context


def _start(context: Any, spec: StageSpec, store: Store) -> _Running:
    store.prepare(spec)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(spec, store, sender), name=spec.id)
    process.start()
    sender.close()
    return _Running(spec, process, receiver)


def _listen(running: Mapping[str, _Running], monitor: Monitor) -> None:
    """Wait for a message or an end, at most a second."""
    sources = [run.pipe for run in running.values() if not run.pipe.closed]
    ready = connection.wait([*sources, *(run.process.sentinel for run in running.values())], timeout=1.0)
    for name, run in running.items():
        if run.pipe in ready:
            _drain(name, run, monitor)
    monitor.tick()


def _drain(name: str, run: _Running, monitor: Monitor) -> None:
    try:
        while not run.pipe.closed and run.pipe.poll():
            kind, *values = run.pipe.recv()
            if kind == "progress":
                monitor.progress(name, *values)
            else:
                run.error = (values[0], values[1], values[2])
    except (EOFError, OSError):
        run.pipe.close()


def _end(run: _Running, store: Store) -> tuple[StageOutcome, bool]:
    """How a process that has ended left its stage, and whether the disk was full."""
    run.process.join()
    run.pipe.close()
    code = run.process.exitcode
    if code == 0 and store.done(run.spec.id):
        return StageOutcome("done"), False
    if run.error is not None:
        return StageOutcome("failed", ErrorClass(run.error[0]), run.error[1]), run.error[2]
    if code is not None and code < 0:
        hint = "; the kernel does this when memory runs out" if code == -signal.SIGKILL else ""
        return StageOutcome("failed", ErrorClass.INFRASTRUCTURE, f"killed by signal {-code}{hint}"), False
    # 255: the fork server itself is gone.
    error = ErrorClass.INFRASTRUCTURE if code == 255 else _BY_EXIT_CODE.get(code or 0, ErrorClass.FAILED)
    return StageOutcome("failed", error, f"ended with code {code}; its log tells more"), False


def _again(spec: StageSpec, error: ErrorClass) -> StageSpec:
    """The same stage for its second attempt; after out of memory with smaller pieces, which its status declares."""
    if error is not ErrorClass.OUT_OF_MEMORY:
        return spec
    smaller = {name: max(1, int(spec.execution[name]) // 2) for name in _SHRINKABLE if name in spec.execution}
    return replace(spec, execution={**spec.execution, **smaller}, degraded=smaller)


def _child(spec: StageSpec, store: Store, sender: connection.Connection) -> None:
    """The stage's process: output into its log, progress and the final error through the pipe."""
    # A group of its own: Ctrl-C reaches the launcher alone, and whoever ends the stage ends its workers too.
    os.setpgrp()
    threading.Thread(target=_die_with_launcher, daemon=True).start()
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


def _die_with_launcher() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
