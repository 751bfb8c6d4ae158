"""The interface of a launcher, and the schedule that launchers share.

A launcher runs the unfinished stages of a plan somewhere: in processes of this machine (``local.py``), or on a cluster.
A new launcher defines a class with the method ``launch`` in a module of this folder and is added to the list in
``tests/bench/matrix/test_launcher_contract.py``. It must guarantee the following.

* Order: a stage starts only when every stage that it needs is finished in the store.
* Width: at most ``slots`` stages run at a time. Of the stages that may start, the one that heads the longest chain
  (in seconds) starts first.
* One run: a finished stage is never run again. Every attempt goes through ``bench.matrix.execute.execute``, which locks
  the stage, resumes what an earlier attempt left, and does nothing when the stage is finished.
* Failures: a failed stage blocks only the stages that need it, directly or through others.
* Retries: an attempt that failed through the machine (``ErrorClass.retried``) is repeated once in the same run. After
  out of memory the second attempt uses half the batch sizes, which never changes results. Other errors are final.
* Full disk: no new stage starts, because each would fail. Running stages end as they can.
* Progress: the monitor receives every start, retry and end, progress several times per second per stage, and a tick at
  least once per second.
* Interruption: on Ctrl-C (KeyboardInterrupt) every running stage is ended with all its processes, and the exception is
  raised again. The same holds when the launcher itself is killed: no stage continues without it. The work directories
  stay, so that the next run resumes there.
* Result: one StageOutcome for each stage that was passed in.

``Schedule`` implements order, retries, blocking and the full disk. A launcher that uses it only has to start a stage's
attempt, pass on its progress, and report how the attempt ended.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Protocol

from bench.errors import ErrorClass
from bench.matrix.plan import Stage
from bench.store import StageOutcome, StageSpec, Store

_ATTEMPTS = 2
# Settings that may shrink when memory runs out: they cut work into pieces and never change what is computed.
_SHRINKABLE = ("micro_batch_tokens", "rollout_batch")


class Monitor(Protocol):
    """Shows a run: a launcher reports every event to it."""

    def started(self, stage: str) -> None: ...
    def progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None: ...
    def retried(self, stage: str, outcome: StageOutcome) -> None: ...
    def finished(self, stage: str, outcome: StageOutcome) -> None: ...
    def tick(self) -> None: ...


class Launcher(Protocol):
    """Runs stages; the module's docstring lists what it must guarantee."""

    def launch(
        self, stages: Mapping[str, Stage], store: Store, *, slots: int, seconds: Mapping[str, float], monitor: Monitor
    ) -> dict[str, StageOutcome]:
        """Run ``stages`` and return how each ended.

        stages: the unfinished stages by id, each after those that it needs.
        slots: the number of stages that may run at a time.
        seconds: the expected duration of each stage; it only decides which stage starts first.

        Raises KeyboardInterrupt after all processes have ended.
        """
        ...


class Schedule:
    """Decides which stages may start, which are tried again, and how each ended; reports this to the monitor.

    The launcher calls ``ready`` to learn what to start, ``start`` for each attempt, ``end`` when the attempt has ended,
    and reads ``outcomes`` when nothing is running or ready any more.
    """

    def __init__(
        self, stages: Mapping[str, Stage], store: Store, seconds: Mapping[str, float], monitor: Monitor
    ) -> None:
        self._stages, self._store, self._monitor = stages, store, monitor
        self._path_seconds = longest_paths(stages, seconds)
        self._specs = {name: stage.spec for name, stage in stages.items()}
        self._attempts: Counter[str] = Counter()
        self._settled: dict[str, StageOutcome] = {}
        self._disk_full = False

    @property
    def outcomes(self) -> dict[str, StageOutcome]:
        """How each stage ended; stages that a full disk kept from starting are ``stopped``."""
        stopped = StageOutcome("stopped", None, "not started: the disk is full")
        return {name: self._settled.get(name, stopped) for name in self._stages}

    def ready(self, running: Collection[str]) -> list[str]:
        """The stages that may start now, the head of the longest path first."""
        self._block_descendants()
        if self._disk_full:
            return []
        names = [
            name
            for name, stage in self._stages.items()
            if name not in self._settled and name not in running and all(map(self._store.done, stage.needs))
        ]
        return sorted(names, key=lambda name: -self._path_seconds[name])

    def start(self, name: str) -> StageSpec:
        """Begin an attempt at a stage and return the specification to execute."""
        self._attempts[name] += 1
        self._monitor.started(name)
        return self._specs[name]

    def end(self, name: str, outcome: StageOutcome, disk_full: bool = False) -> None:
        """Record how an attempt ended: the stage is settled, or becomes ready for its second attempt."""
        self._disk_full = self._disk_full or disk_full
        error = outcome.error_class
        if error is not None and error.retried and not disk_full and self._attempts[name] < _ATTEMPTS:
            self._specs[name] = _second_attempt(self._specs[name], error)
            self._monitor.retried(name, outcome)
        else:
            self._settle(name, outcome)

    def _settle(self, name: str, outcome: StageOutcome) -> None:
        self._settled[name] = outcome
        self._monitor.finished(name, outcome)

    def _block_descendants(self) -> None:
        """Settle every stage that needs a stage which did not finish; the order of stages makes one pass enough."""
        for name, stage in self._stages.items():
            if name not in self._settled:
                lost = [need for need in stage.needs if need in self._settled and self._settled[need].state != "done"]
                if lost:
                    self._settle(name, StageOutcome("blocked", None, f"needs {lost[0]}"))


def longest_paths(stages: Mapping[str, Stage], seconds: Mapping[str, float]) -> dict[str, float]:
    """The seconds of the longest chain of stages that begins with each stage; ``stages`` are in topological order."""
    paths: dict[str, float] = {}
    for name in reversed(list(stages)):
        successors = [paths[other] for other, stage in stages.items() if name in stage.needs and other in paths]
        paths[name] = seconds.get(name, 0.0) + max(successors, default=0.0)
    return paths


def _second_attempt(spec: StageSpec, error: ErrorClass) -> StageSpec:
    """The stage for its second attempt: after out of memory with smaller pieces, which its status declares."""
    if error is not ErrorClass.OUT_OF_MEMORY:
        return spec
    smaller = {name: max(1, int(spec.execution[name]) // 2) for name in _SHRINKABLE if name in spec.execution}
    return replace(spec, execution={**spec.execution, **smaller}, degraded=smaller)
