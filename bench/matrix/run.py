"""Run a matrix: plan it, do what is not done, read the results, write the report.

``run_matrix`` is what ``vold-bench run-matrix`` calls; everything the command line can do goes through here.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.display.matrix import LineMonitor, LiveMonitor
from bench.errors import ConfigurationError, ErrorClass, ExitCode
from bench.matrix.costs import estimate, pending
from bench.matrix.launchers.local import launch
from bench.matrix.plan import Plan, Stage, make_plan
from bench.matrix.spec import Override
from bench.store import StageOutcome, Store

if TYPE_CHECKING:
    from rich.console import Console

STORE = Path(os.environ.get("VOLD_BENCH_STORE", "results/store"))
REPORTS = Path("reports")


@dataclass(frozen=True, slots=True)
class MatrixRun:
    """What a run did. ``outcomes`` holds the stages that were not finished before; ``report`` the page's path."""

    plan: Plan
    outcomes: dict[str, StageOutcome]
    report: Path | None

    @property
    def failures(self) -> dict[str, StageOutcome]:
        return {name: outcome for name, outcome in self.outcomes.items() if outcome.state == "failed"}

    @property
    def common_error(self) -> ErrorClass | None:
        """The error class that all failures share, if there is one."""
        classes = {outcome.error_class for outcome in self.failures.values()}
        return classes.pop() if len(classes) == 1 else None

    @property
    def exit_code(self) -> ExitCode:
        """OK, or the code of the failures' common class, or FAILED where they differ."""
        if all(outcome.state == "done" for outcome in self.outcomes.values()):
            return ExitCode.OK
        return (self.common_error or ErrorClass.FAILED).exit_code


def run_matrix(
    path: Path,
    *,
    profile: str = "small",
    seeds: Sequence[int] | None = None,
    overrides: Iterable[Override] = (),
    only: Sequence[str] = (),
    jobs: int | None = None,
    store: Path = STORE,
    reports: Path | None = REPORTS,
    console: "Console | None" = None,
) -> MatrixRun:
    """Run every stage of a matrix file that is not finished and build its report under ``reports``.

    Finished stages are never done again and interrupted ones go on where they stood. ``reports=None`` leaves
    the report out. Raises ConfigurationError for wrong input and InfrastructureError when the store is in use.
    """
    from rich.console import Console

    home = Store(store)
    plan = make_plan(path, home, profile=profile, seeds=seeds, overrides=overrides, only=only)
    return complete(plan, home, jobs=jobs, reports=reports, console=console or Console(stderr=True))


def complete(plan: Plan, store: Store, *, jobs: int | None, reports: Path | None, console: "Console") -> MatrixRun:
    """Do what a plan still needs, then its report, unless nothing could be evaluated."""
    outcomes = run_plan(plan, store, jobs=jobs, console=console)
    evaluated = any(store.done(name) for name, stage in plan.stages.items() if stage.kind == "eval")
    report = write_report(plan, store, reports) if reports is not None and evaluated else None
    return MatrixRun(plan, outcomes, report)


def run_plan(plan: Plan, store: Store, *, jobs: int | None, console: "Console") -> dict[str, StageOutcome]:
    """Do the unfinished stages of a plan; raises ConfigurationError when inputs are not on this machine."""
    todo = pending(plan, store)
    if not todo:
        return {}
    if plan.absent:
        raise ConfigurationError("inputs are missing:\n" + "\n".join(plan.absent))
    slots = jobs or plan.profile.settings.hardware.slots or (1 if plan.profile.settings.hardware.gpus else _cpus())
    cost = estimate(plan, store)
    watch = LiveMonitor if console.is_terminal else LineMonitor
    with store.lock("run"):
        stages = {name: _with_threads(stage, slots) for name, stage in todo.items()}
        labels = {name: label(plan, name) for name in todo}
        with watch(console, labels, cost.seconds, slots) as monitor:
            return launch(stages, store, slots=slots, seconds=cost.seconds, monitor=monitor)


def write_report(plan: Plan, store: Store, reports: Path) -> Path:
    """Build the report of what is in the store and return the page's path."""
    from bench.matrix.results import load
    from bench.report import build

    out = reports / report_name(plan)
    build(plan.spec, load(plan, store), out)
    return out / "index.html"


def report_name(plan: Plan) -> str:
    """The matrix's name, with a profile other than the embedded one, and whether it is only part of the experiment."""
    name = plan.spec.name if plan.profile.name == "small" else f"{plan.spec.name}-{plan.profile.name}"
    return f"{name}-partial" if plan.departures else name


def label(plan: Plan, stage: str) -> str:
    """Which arms and seeds a stage serves, in few words."""
    cells = [cell for cell in plan.cells if stage in cell.stages.values()]
    arms, seeds = list(dict.fromkeys(c.arm for c in cells)), list(dict.fromkeys(c.seed for c in cells))
    more = f" and {len(arms) - 1} more" if len(arms) > 1 else ""
    return f"{arms[0]}{more}, seed {' '.join(map(str, seeds))}"


def _with_threads(stage: Stage, slots: int) -> Stage:
    """Share the CPUs out where the profile leaves the number of threads open."""
    execution = dict(stage.spec.execution)
    if execution.get("threads") is None:
        execution["threads"] = max(1, _cpus() // slots)
    return replace(stage, spec=replace(stage.spec, execution=execution))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
