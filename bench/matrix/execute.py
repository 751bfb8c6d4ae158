"""Run one stage in this process: lock it, call its function, account for its time, publish it."""

import dataclasses
import resource
import time
from contextlib import suppress

from bench.errors import classify, describe
from bench.matrix.stages import Progress, locate
from bench.store import StageSpec, Status, Store

# A process that a killed run left behind needs a moment until it ends itself and releases the stage.
_LOCK_WAIT = 30.0
_STATUS_EVERY = 5.0


def execute(spec: StageSpec, store: Store, progress: Progress, **shared: object) -> None:
    """Run or resume a stage and publish it; do nothing when it is finished.

    shared: objects that several stages of one process share, such as a loaded engine; passed to the stage's function.

    An error of the stage is written to ``status.json`` in its work directory and raised again.
    """
    with store.lock(spec.id, wait=_LOCK_WAIT):
        if store.settled(spec):
            return
        if store.done(spec.id):
            store.reopen(spec.id)
        work = store.prepare(spec)
        account = _Account(Status.read(work) or Status(), spec)
        account.status.write(work)
        last = time.monotonic()

        def report(done: int, total: int, metrics: dict[str, float]) -> None:
            nonlocal last
            if time.monotonic() - last > _STATUS_EVERY:
                last = time.monotonic()
                account.now().write(work)
            progress(done, total, metrics)

        try:
            locate(spec.run)(spec, store, work, report, **shared)
        except BaseException as error:
            failed = account.now(state="failed", error_class=classify(error).value, message=describe(error))
            with suppress(OSError):
                failed.write(work)
            raise
        account.now(state="done").write(work)
        store.publish(spec.id)


class _Account:
    """Counts the time spent on a stage, including earlier attempts."""

    def __init__(self, earlier: Status, spec: StageSpec) -> None:
        self.cpu, self.wall = _cpu_seconds(), time.monotonic()
        self.status = Status(
            started=earlier.started or time.time(),
            cpu_seconds=earlier.cpu_seconds,
            wall_seconds=earlier.wall_seconds,
            attempts=earlier.attempts + 1,
            degraded=dict(spec.degraded),
        )

    def now(self, **changes: str) -> Status:
        return dataclasses.replace(
            self.status,
            cpu_seconds=round(self.status.cpu_seconds + _cpu_seconds() - self.cpu, 3),
            wall_seconds=round(self.status.wall_seconds + time.monotonic() - self.wall, 3),
            finished=time.time() if changes else 0.0,
            **changes,  # type: ignore[arg-type]
        )


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
