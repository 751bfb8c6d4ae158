"""What every launcher must guarantee (``bench.matrix.launchers.base``), checked with stand-ins for the stages."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from bench.errors import ErrorClass
from bench.matrix.launchers.base import Launcher
from bench.matrix.launchers.local import LocalLauncher
from bench.matrix.plan import Plan, make_plan
from bench.store import StageOutcome, Store

LAUNCHERS: dict[str, Launcher] = {"local": LocalLauncher(preload=())}
ARM, SEED, KINDS = "teacher+grpo_opd", 1, ("traces", "sft", "rl", "eval")


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> Launcher:
    return LAUNCHERS[request.param]


class EventLog:
    """A monitor that keeps every event as (event, kind of stage)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.last_progress: dict[str, tuple[int, int]] = {}
        self.ticks = 0

    def started(self, stage: str) -> None:
        self._add("started", stage)

    def progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        self.last_progress[stage.partition("-")[0]] = (done, total)

    def retried(self, stage: str, outcome: StageOutcome) -> None:
        self._add("retried", stage)

    def finished(self, stage: str, outcome: StageOutcome) -> None:
        self._add(outcome.state, stage)

    def tick(self) -> None:
        self.ticks += 1

    def _add(self, event: str, stage: str) -> None:
        self.events.append((event, stage.partition("-")[0]))


def one_arm(world: tuple[Path, Store]) -> tuple[Plan, Store]:
    """A chain of four stages: traces, sft, rl, eval."""
    matrix, store = world
    return make_plan(matrix, store, only=[ARM], seeds=[SEED]), store


def launch(launcher: Launcher, plan: Plan, store: Store, log: EventLog, slots: int = 2) -> dict[str, str]:
    """Run the plan and return the state of each stage by its kind."""
    outcomes = launcher.launch(plan.stages, store, slots=slots, seconds={}, monitor=log)
    assert outcomes.keys() == plan.stages.keys()
    return {plan.stages[name].kind: outcome.state for name, outcome in outcomes.items()}


def control(store: Store, name: str) -> None:
    (store.root.parent / "control" / name).touch()


def processes(store: Store, kind: str) -> list[int]:
    """The processes that worked on the stage of a kind."""
    files = [*store.root.glob(f"{kind}-*/pid-*"), *store.root.glob(f".work/{kind}-*/pid-*")]
    return [int(path.name.removeprefix("pid-")) for path in files]


def test_stages_run_in_the_order_of_their_needs_and_the_monitor_hears_of_each(
    launcher: Launcher, world: tuple[Path, Store]
) -> None:
    plan, store = one_arm(world)
    log = EventLog()
    assert launch(launcher, plan, store, log) == dict.fromkeys(KINDS, "done")
    # A stage may start as soon as the stage before it is published, a moment before that one's process has ended.
    assert sorted(log.events) == sorted((event, kind) for kind in KINDS for event in ("started", "done"))
    assert [kind for event, kind in log.events if event == "started"] == list(KINDS)
    assert [kind for event, kind in log.events if event == "done"] == list(KINDS)
    assert log.last_progress == {"traces": (5, 5), "sft": (20, 20), "rl": (30, 30), "eval": (5, 5)}
    assert log.ticks > 0


def test_a_finished_stage_is_never_run_again(launcher: Launcher, world: tuple[Path, Store]) -> None:
    plan, store = one_arm(world)
    launch(launcher, plan, store, EventLog())
    assert set(launch(launcher, plan, store, EventLog()).values()) == {"done"}
    assert all(len(processes(store, kind)) == 1 for kind in KINDS)


def test_only_failures_of_the_machine_are_retried(launcher: Launcher, world: tuple[Path, Store]) -> None:
    plan, store = one_arm(world)
    control(store, "kill-sft")
    control(store, "refuse-rl")
    log = EventLog()
    states = launch(launcher, plan, store, log)
    assert states == {"traces": "done", "sft": "done", "rl": "failed", "eval": "blocked"}
    assert ("retried", "sft") in log.events and ("retried", "rl") not in log.events
    assert (len(processes(store, "sft")), len(processes(store, "rl"))) == (2, 1)


def test_a_full_disk_starts_nothing_new(launcher: Launcher, world: tuple[Path, Store]) -> None:
    matrix, store = world
    plan = make_plan(matrix, store, only=["base", ARM], seeds=[SEED])
    control(store, "full-traces")
    traces, base = (name for name, stage in plan.stages.items() if not stage.needs)
    seconds = {traces: 2.0, base: 1.0}
    outcomes = launcher.launch(plan.stages, store, slots=1, seconds=seconds, monitor=EventLog())
    assert (outcomes[traces].state, outcomes[traces].error_class) == ("failed", ErrorClass.INFRASTRUCTURE)
    assert outcomes[base].state == "stopped"


def test_an_interrupt_ends_every_process_and_the_next_run_resumes(
    launcher: Launcher, world: tuple[Path, Store]
) -> None:
    plan, store = one_arm(world)

    def interrupt() -> None:
        while not processes(store, "sft"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        launch(launcher, plan, store, EventLog())
    thread.join()
    for pid in processes(store, "sft"):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert set(launch(launcher, plan, store, EventLog()).values()) == {"done"}
    assert len(processes(store, "traces")) == 1 and len(processes(store, "sft")) == 2
