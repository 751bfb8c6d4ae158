"""Run a matrix file: plan it, run the unfinished stages, and write the report.

``run_matrix`` is the whole of it for Python. The commands ``run-matrix`` and ``report`` call the parts (``make_plan``,
``complete``, ``write_report``) because they also print the plan. ``eval``, ``train`` and ``traces`` run one stage
without a matrix and do not come through here.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.display.matrix import LineMonitor, LiveMonitor
from bench.errors import ConfigurationError, ErrorClass, ExitCode
from bench.matrix.costs import estimate, pending
from bench.matrix.launchers.base import Launcher
from bench.matrix.launchers.local import LocalLauncher
from bench.matrix.plan import Plan, Stage, make_plan
from bench.matrix.spec import Override
from bench.store import StageOutcome, Store

if TYPE_CHECKING:
    from rich.console import Console

STORE = Path(os.environ.get("VOLD_BENCH_STORE", "results/store"))
REPORTS = Path("reports")


@dataclass(frozen=True, slots=True)
class MatrixRun:
    """The outcome of a run.

    outcomes: how each stage ended that was unfinished before the run.
    report: the path of the report page, or None when no report was written.
    """

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
    store: Store | None = None,
    reports: Path | None = REPORTS,
    console: "Console | None" = None,
    launcher: Launcher | None = None,
) -> MatrixRun:
    """Run every unfinished stage of a matrix file and build its report under ``reports``.

    Finished stages are never run again, and interrupted ones resume where they stopped. Arguments are those of
    ``make_plan`` and ``run_plan``, and:

    store: where finished stages are; None: the directory ``STORE``.
    reports: the directory of reports; None: no report is written.
    console: where progress is shown; None: standard error.

    Raises ConfigurationError for wrong input and InfrastructureError when the store is in use.
    """
    from rich.console import Console

    store = store or Store(STORE)
    plan = make_plan(path, store, profile=profile, seeds=seeds, overrides=overrides, only=only)
    console = console or Console(stderr=True)
    return complete(plan, store, jobs=jobs, reports=reports, console=console, launcher=launcher)


def complete(
    plan: Plan,
    store: Store,
    *,
    jobs: int | None,
    reports: Path | None,
    console: "Console",
    launcher: Launcher | None = None,
) -> MatrixRun:
    """Run the unfinished stages of a plan, then write its report if at least one evaluation is finished."""
    outcomes = run_plan(plan, store, jobs=jobs, console=console, launcher=launcher)
    evaluated = any(store.done(name) for name, stage in plan.stages.items() if stage.kind == "eval")
    report = write_report(plan, store, reports) if reports is not None and evaluated else None
    return MatrixRun(plan, outcomes, report)


def run_plan(
    plan: Plan, store: Store, *, jobs: int | None, console: "Console", launcher: Launcher | None = None
) -> dict[str, StageOutcome]:
    """Run the unfinished stages of a plan and return how each ended.

    jobs: the number of stages that run in parallel; None: the profile's number, or one per CPU, or one on a machine
    with GPUs.
    launcher: where the stages run; None: in processes of this machine.

    Raises ConfigurationError when inputs are missing on this machine.
    """
    todo = pending(plan, store)
    if not todo:
        return {}
    if plan.absent:
        raise ConfigurationError("inputs are missing:\n" + "\n".join(plan.absent))
    hardware = plan.profile.settings.hardware
    slots = jobs or hardware.slots or (1 if hardware.gpus else _cpus())
    cost = estimate(plan, store)
    monitor_class = LiveMonitor if console.is_terminal else LineMonitor
    with store.lock("run"):
        stages = {name: _with_threads(stage, slots) for name, stage in todo.items()}
        labels = {name: label(plan, name) for name in todo}
        with monitor_class(console, labels, cost.seconds, slots) as monitor:
            launcher = launcher or LocalLauncher()
            return launcher.launch(stages, store, slots=slots, seconds=cost.seconds, monitor=monitor)


def write_report(plan: Plan, store: Store, reports: Path) -> Path:
    """Build the report from the finished stages and return the page's path."""
    from bench.matrix.results import load
    from bench.report import build_report

    out = reports / report_name(plan)
    build_report(plan.spec, load(plan, store), out)
    return out / "index.html"


def report_name(plan: Plan) -> str:
    """The name of the report's directory: the matrix, the profile unless it is ``small``, and ``partial`` for a part.

    A report is partial when the command line changed settings, arms or seeds of the matrix file.
    """
    name = plan.spec.name if plan.profile.name == "small" else f"{plan.spec.name}-{plan.profile.name}"
    return f"{name}-partial" if plan.changes else name


def label(plan: Plan, stage: str) -> str:
    """The arms, students and seeds that use a stage, in few words."""
    cells = [cell for cell in plan.cells if stage in cell.stages.values()]
    arms, students, seeds = (
        list(dict.fromkeys(values)) for values in zip(*((c.arm, c.student, c.seed) for c in cells), strict=True)
    )
    more = f" and {len(arms) - 1} more" if len(arms) > 1 else ""
    student = f", {' '.join(students)}" if len(plan.students) > 1 else ""
    return f"{arms[0]}{more}{student}, seed {' '.join(map(str, seeds))}"


def _with_threads(stage: Stage, slots: int) -> Stage:
    """Divide the CPUs among the slots where the profile does not set the number of threads."""
    execution = dict(stage.spec.execution)
    if execution.get("threads") is None:
        execution["threads"] = max(1, _cpus() // slots)
    return replace(stage, spec=replace(stage.spec, execution=execution))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
