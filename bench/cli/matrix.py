"""``run-matrix`` and ``report``: an ablation file, planned, run and reported."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import Json, ProfileOption, ReportsOption, StoreOption, listed, open_store
from bench.errors import ConfigurationError, ErrorClass, ExitCode
from bench.terminal import clock, printable

if TYPE_CHECKING:
    from bench.matrix.costs import CostEstimate
    from bench.matrix.plan import Plan
    from bench.matrix.run import MatrixRun
    from bench.store import Store

SeedsOption = Annotated[str, typer.Option(help="Training seeds instead of the file's, such as 11,23.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting for every arm, such as rl.steps=10.")]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", help="Only this arm; may be given several times.")]
_KINDS = ("traces", "sft", "rl", "eval")


def run_matrix(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, such as ablations/cold_start.yaml.")],
    profile: ProfileOption = "small",
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be done and what it costs; do nothing.")] = False,
    seeds: SeedsOption = "",
    settings: SetOption = None,
    only: OnlyOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Stages side by side \\[default: one a CPU].")] = None,
    store: StoreOption = None,
    reports: ReportsOption = Path("reports"),
    as_json: Json = False,
    report: Annotated[bool, typer.Option(help="Build the report at the end.")] = True,
) -> None:
    """Train and evaluate every arm of a matrix file and write its report.

    Finished stages are never done again; an interrupted run goes on where it stood.
    """
    from bench.matrix.costs import pending
    from bench.matrix.run import complete

    home = open_store(store)
    planned = _planned(matrix, home, profile, seeds, settings or (), only or ())
    if plan:
        return _show_plan(planned, home, as_json)
    errors = Console(stderr=True)
    total, todo = len(planned.stages), len(pending(planned, home))
    errors.print(f"{planned.spec.name}: {total} stages, {total - todo} finished before, {todo} to do")
    result = complete(planned, home, jobs=jobs, reports=reports if report else None, console=errors)
    _failures(result, home, errors)
    if as_json:
        print_json(_run_data(result))
    elif result.report is not None:
        print(f"report: {result.report}")
    raise typer.Exit(result.exit_code)


def report(
    matrix: Annotated[Path, typer.Argument(help="A matrix file.")],
    profile: ProfileOption = "small",
    seeds: SeedsOption = "",
    settings: SetOption = None,
    only: OnlyOption = None,
    store: StoreOption = None,
    reports: ReportsOption = Path("reports"),
    as_json: Json = False,
) -> None:
    """Build the report again from what is finished; trains nothing."""
    from bench.matrix.costs import pending
    from bench.matrix.run import write_report

    home = open_store(store)
    planned = _planned(matrix, home, profile, seeds, settings or (), only or ())
    missing = list(pending(planned, home))
    path = write_report(planned, home, reports)
    if as_json:
        print_json({"report": path, "missing": missing})
    else:
        print(f"report: {path}")
    if missing:
        Console(stderr=True).print(f"{len(missing)} of {len(planned.stages)} stages are missing; run-matrix does them")
        raise typer.Exit(ExitCode.INCOMPLETE)


def _planned(
    matrix: Path, store: "Store", profile: str, seeds: str, settings: Sequence[str], only: Sequence[str]
) -> "Plan":
    from bench.matrix.plan import make_plan, parse_setting

    overrides = [parse_setting(text) for text in settings]
    return make_plan(matrix, store, profile=profile, seeds=_seeds(seeds), overrides=overrides, only=only)


def _seeds(text: str) -> list[int] | None:
    if not text:
        return None
    try:
        seeds = [int(part) for part in listed(text)]
    except ValueError:
        raise ConfigurationError(f"--seeds {text}: expected whole numbers separated by commas, such as 11,23") from None
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigurationError(f"--seeds {text}: seeds must be different numbers from 0")
    return seeds


def _run_data(result: "MatrixRun") -> dict[str, Any]:
    return {
        "matrix": result.plan.spec.name,
        "profile": result.plan.profile.name,
        "stages": len(result.plan.stages),
        "outcomes": {name: asdict(outcome) for name, outcome in result.outcomes.items()},
        "report": result.report,
        "exit_code": result.exit_code.value,
    }


def _failures(result: "MatrixRun", store: "Store", console: Console) -> None:
    """Each failure once, with its log and what to do."""
    for name, outcome in result.failures.items():
        kind = outcome.error_class or ErrorClass.FAILED
        text = f"{name} failed ({kind.value}): {printable(outcome.message)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"  log: {store.work(name) / 'log.txt'}", markup=False, highlight=False, soft_wrap=True)
    states = [outcome.state for outcome in result.outcomes.values()]
    if result.failures:
        lost = states.count("blocked") + states.count("stopped")
        console.print(f"{states.count('done')} stages done, {len(result.failures)} failed, {lost} not started for it.")
        console.print("Everything finished is kept; mend the cause and run the same command again.")


def _show_plan(plan: "Plan", store: "Store", as_json: bool) -> None:
    """Arms, stages, cost and its source, the longest path, what is not on this machine."""
    from bench.matrix.costs import estimate

    cost = estimate(plan, store)
    chain = _longest(plan, cost)
    if as_json:
        print_json(_plan_data(plan, cost, chain))
        return
    console = Console()
    settings = plan.profile.settings
    console.print(Text.assemble((plan.spec.name, "bold"), "  ", plan.spec.question))
    profile = f"profile {plan.profile.name}: {settings.about}; {settings.hardware.device}"
    console.print(profile, markup=False, highlight=False)
    console.print(f"seeds {', '.join(map(str, plan.seeds))}", highlight=False)
    for table in (_inputs_table(plan), _arms_table(plan, store), _stages_table(plan, store, cost)):
        console.print(table)
    unit = f"{cost.unit}-hours" if cost.total > 7200 else f"{cost.unit}-seconds"
    amount = cost.total / 3600 if cost.total > 7200 else cost.total
    console.print(
        f"to do: {len(cost.seconds)} of {len(plan.stages)} stages, about {amount:,.0f} {unit}", highlight=False
    )
    console.print(f"longest path: {' > '.join(chain) or 'nothing'}, {clock(sum(cost.seconds[n] for n in chain))}")
    for source, kinds in _by_source(cost).items():
        console.print(f"estimate of {', '.join(kinds)}: {source}", highlight=False)
    for note in plan.absent:
        console.print(f"not here yet: {note}", markup=False, highlight=False, soft_wrap=True)
    for contrast in plan.spec.analysis.contrasts:
        console.print(
            f"contrast {contrast.id}: {contrast.test} over {contrast.against}, "
            f"relevant from {100 * contrast.min_effect:g} points",
            highlight=False,
        )


def _inputs_table(plan: "Plan") -> Table:
    from bench.smallworld.sources import source_title

    settings = plan.profile.settings
    table = Table("input", "source", title="models and data", title_justify="left")
    for role, source in settings.models.items():
        table.add_row(Text(role), Text(source if isinstance(source, str) else ", ".join(source)))
    table.add_row("prompts of the traces", Text(settings.data.traces))
    table.add_row("prompts of RL", Text(settings.data.rl))
    for benchmark, source in settings.data.eval.items():
        table.add_row(Text(source_title(benchmark, source)), Text(source))
    return table


def _arms_table(plan: "Plan", store: "Store") -> Table:
    table = Table("arm", *_KINDS, title="arms (finished / seeds)", title_justify="left")
    for arm in dict.fromkeys(cell.arm for cell in plan.cells):
        cells = [cell for cell in plan.cells if cell.arm == arm]
        row = []
        for kind in _KINDS:
            names = [cell.stages[kind] for cell in cells if kind in cell.stages]
            row.append(f"{_settled(plan, store, names)}/{len(names)}" if names else "-")
        table.add_row(arm, *row)
    return table


def _stages_table(plan: "Plan", store: "Store", cost: "CostEstimate") -> Table:
    title = "unique stages: what several arms and seeds share is done once"
    table = Table(
        "kind", "unique", "finished", "to do", f"{cost.unit}-seconds to do", title=title, title_justify="left"
    )
    for kind in _KINDS:
        names = [name for name, stage in plan.stages.items() if stage.kind == kind]
        done = _settled(plan, store, names)
        seconds = sum(cost.seconds.get(name, 0.0) for name in names)
        table.add_row(kind, str(len(names)), str(done), str(len(names) - done), f"{seconds:,.0f}")
    return table


def _settled(plan: "Plan", store: "Store", names: Sequence[str]) -> int:
    return sum(store.settled(plan.stages[name].spec) for name in names)


def _longest(plan: "Plan", cost: "CostEstimate") -> list[str]:
    """The chain of unfinished stages that takes longest: no number of machines makes the run shorter."""
    from bench.matrix.launchers.base import longest_paths

    todo = {name: plan.stages[name] for name in cost.seconds}
    paths = longest_paths(todo, cost.seconds)
    chain: list[str] = []
    options = list(todo)
    while options:
        chain.append(max(options, key=lambda name: paths[name]))
        options = [name for name, stage in todo.items() if chain[-1] in stage.needs]
    return chain


def _by_source(cost: "CostEstimate") -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for kind, source in cost.sources.items():
        kinds.setdefault(source, []).append(kind)
    return kinds


def _plan_data(plan: "Plan", cost: "CostEstimate", chain: list[str]) -> dict[str, Any]:
    settings = plan.profile.settings
    return {
        "matrix": plan.spec.name,
        "question": plan.spec.question,
        "profile": plan.profile.name,
        "hardware": settings.hardware.model_dump(),
        "models": settings.model_dump(mode="json")["models"],
        "data": settings.data.model_dump(),
        "seeds": list(plan.seeds),
        "arms": list(dict.fromkeys(cell.arm for cell in plan.cells)),
        "excluded": dict(plan.spec.excluded),
        "cells": [{"arm": cell.arm, "seed": cell.seed, "stages": dict(cell.stages)} for cell in plan.cells],
        "stages": {
            name: {
                "kind": stage.kind,
                "needs": list(stage.needs),
                "done": name not in cost.seconds,
                "expected_seconds": cost.seconds.get(name, 0.0),
                "config": dict(stage.spec.config),
                "seed": stage.spec.seed,
            }
            for name, stage in plan.stages.items()
        },
        "cost": {"unit": cost.unit, "seconds": math.fsum(cost.seconds.values()), "sources": dict(cost.sources)},
        "longest_path": chain,
        "absent": plan.absent,
    }
