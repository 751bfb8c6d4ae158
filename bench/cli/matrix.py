"""``vold-bench run-matrix`` and ``vold-bench report``: plan, run and report a matrix file."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import Json, ProfileOption, ReportOption, StoreOption, open_store, split_commas
from bench.errors import ConfigurationError, ErrorClass, ExitCode
from bench.report.numbers import points
from bench.terminal import clock, printable

if TYPE_CHECKING:
    from bench.matrix.costs import CostEstimate
    from bench.matrix.plan import Plan
    from bench.matrix.power import PlannedContrast
    from bench.matrix.run import MatrixRun
    from bench.store import Store

MatrixArgument = Annotated[Path, typer.Argument(help="Matrix file, or the name of a bundled one, such as cold_start.")]
SeedsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--seeds",
        help="Training seeds, such as 11,23. Repeatable, or separated by commas. \\[default: those of the file]",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting for every arm, such as rl.steps=10; `vold-bench settings` lists them. Repeatable.",
    ),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="Only these arms. Repeatable, or separated by commas.")
]
_KINDS = ("traces", "sft", "rl", "eval")


def run_matrix(
    matrix: MatrixArgument,
    profile: ProfileOption = "small",
    plan: Annotated[bool, typer.Option("--plan", help="Show the stages and their cost; run nothing.")] = False,
    seeds: SeedsOption = None,
    settings: SetOption = None,
    only: OnlyOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stages to run in parallel. \\[default: the profile's slots, or 1 if it has GPUs, or one per CPU]",
        ),
    ] = None,
    store: StoreOption = None,
    report: ReportOption = Path("reports"),
    no_report: Annotated[bool, typer.Option("--no-report", help="Build no report page.")] = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate every arm of a matrix file, then build its report.

    Finished stages are reused, and an interrupted run resumes where it stopped.
    """
    from bench.matrix.costs import pending
    from bench.matrix.run import complete

    home = open_store(store)
    planned = _planned(matrix, home, profile, seeds, settings, only)
    if plan:
        return _show_plan(planned, home, as_json)
    errors = Console(stderr=True)
    total, todo = len(planned.stages), len(pending(planned, home))
    errors.print(f"{planned.spec.name}: {total} stages, {total - todo} finished before, {todo} to do")
    result = complete(planned, home, jobs=jobs, reports=None if no_report else report, console=errors)
    _show_failures(result, home, errors)
    if as_json:
        print_json(_run_data(result))
    elif result.report is not None:
        print(f"report: {result.report}")
    raise typer.Exit(result.exit_code)


def build_report(
    matrix: MatrixArgument,
    profile: ProfileOption = "small",
    seeds: SeedsOption = None,
    settings: SetOption = None,
    only: OnlyOption = None,
    store: StoreOption = None,
    report: ReportOption = Path("reports"),
    as_json: Json = False,
) -> None:
    """Build the report of a matrix file from its finished stages; train and evaluate nothing."""
    from bench.matrix.costs import pending
    from bench.matrix.run import write_report

    home = open_store(store)
    planned = _planned(matrix, home, profile, seeds, settings, only)
    missing = list(pending(planned, home))
    path = write_report(planned, home, report)
    if as_json:
        print_json({"report": path, "missing": missing})
    else:
        print(f"report: {path}")
    if missing:
        Console(stderr=True).print(
            f"{len(missing)} of {len(planned.stages)} stages are missing; `vold-bench run-matrix` runs them"
        )
        raise typer.Exit(ExitCode.INCOMPLETE)


def _planned(
    matrix: Path,
    store: "Store",
    profile: str,
    seeds: Sequence[str] | None,
    settings: Sequence[str] | None,
    only: Sequence[str] | None,
) -> "Plan":
    from bench.matrix.plan import make_plan, parse_setting

    overrides = [parse_setting(text) for text in settings or ()]
    return make_plan(
        matrix,
        store,
        profile=profile,
        seeds=_seed_numbers(split_commas(seeds)),
        overrides=overrides,
        only=split_commas(only),
    )


def _seed_numbers(texts: Sequence[str]) -> list[int] | None:
    if not texts:
        return None
    shown = ",".join(texts)
    try:
        seeds = [int(text) for text in texts]
    except ValueError:
        raise ConfigurationError(f"--seeds {shown}: expected whole numbers such as 11,23") from None
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigurationError(f"--seeds {shown}: expected different numbers that are not negative")
    return seeds


def _run_data(result: "MatrixRun") -> dict[str, object]:
    return {
        "matrix": result.plan.spec.name,
        "profile": result.plan.profile.name,
        "stages": len(result.plan.stages),
        "outcomes": {name: asdict(outcome) for name, outcome in result.outcomes.items()},
        "report": result.report,
        "exit_code": result.exit_code.value,
    }


def _show_failures(result: "MatrixRun", store: "Store", console: Console) -> None:
    """Print each failure once, where its log is, and what to do."""
    for name, outcome in result.failures.items():
        kind = outcome.error_class or ErrorClass.FAILED
        text = f"{name} failed ({kind.value}): {printable(outcome.message)}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"  log: {store.work(name) / 'log.txt'}", markup=False, highlight=False, soft_wrap=True)
    states = [outcome.state for outcome in result.outcomes.values()]
    if result.failures:
        lost = states.count("blocked") + states.count("stopped")
        console.print(
            f"{states.count('done')} stages are done, {len(result.failures)} failed, and {lost} were not started "
            "because of that."
        )
        console.print("Finished stages are kept. Fix the cause and run the command again.")


def _show_plan(plan: "Plan", store: "Store", as_json: bool) -> None:
    """Print arms, stages, cost and its source, the longest path, and inputs that are not on this machine."""
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
    students, seeds = ", ".join(plan.students), ", ".join(map(str, plan.seeds))
    console.print(f"students {students}; each with seeds {seeds}", markup=False, highlight=False)
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
        console.print(f"missing input: {note}", markup=False, highlight=False, soft_wrap=True)
    for line in _contrast_lines(plan):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    from bench.matrix.plan import SAMPLED

    names = (*_KINDS, SAMPLED) if plan.spec.analysis.sampled else _KINDS
    table = Table("arm", *names, title="arms (finished / runs)", title_justify="left")
    for arm in dict.fromkeys(cell.arm for cell in plan.cells):
        cells = [cell for cell in plan.cells if cell.arm == arm]
        row = []
        for name in names:
            stages = [cell.stages[name] for cell in cells if name in cell.stages]
            row.append(f"{_settled(plan, store, stages)}/{len(stages)}" if stages else "-")
        table.add_row(arm, *row)
    return table


def _stages_table(plan: "Plan", store: "Store", cost: "CostEstimate") -> Table:
    title = "unique stages (runs share stages)"
    table = Table(
        "kind", "unique", "finished", "to do", f"{cost.unit}-seconds to do", title=title, title_justify="left"
    )
    for kind in _KINDS:
        stages = [name for name, stage in plan.stages.items() if stage.kind == kind]
        done = _settled(plan, store, stages)
        seconds = sum(cost.seconds.get(name, 0.0) for name in stages)
        table.add_row(kind, str(len(stages)), str(done), str(len(stages) - done), f"{seconds:,.0f}")
    return table


def _contrast_lines(plan: "Plan") -> Iterator[str]:
    """What each contrast compares, what it finds with the planned runs, and how many seeds it would need."""
    from bench.matrix.power import planned_contrasts

    contrasts = planned_contrasts(plan)
    for c in contrasts:
        yield f"contrast {c.id}: {c.comparison}, relevant from {100 * c.min_effect:g} points"
        if not c.seeds:
            yield "  an arm of this contrast is not part of this plan"
        elif c.sd is not None:
            yield f"  {_power_words(c, c.sd)}"
    if contrasts and all(c.sd is None for c in contrasts):
        yield "what the contrasts find is not known: analysis.planned_sd is not in the matrix file"
    elif contrasts:
        step = f"the strictest step of the correction {plan.spec.analysis.correction}"
        yield f"each with 80 % power at the level {contrasts[0].level:.2g}, {step}"


def _power_words(c: "PlannedContrast", sd: float) -> str:
    design = f"{c.runs} runs (students x seeds: {c.students} x {c.seeds}), df {c.df}, sd {100 * sd:g}"
    found = "no spread over seeds is measured, so nothing is found"
    if c.mde is not None:
        found = f"finds {points(c.mde, signed=False)} points or more"
    if not c.effect:
        return f"{design}: {found}"
    needed = f"{c.seeds_needed} seeds per student" if c.seeds_needed else "more problems, not more seeds alone"
    return f"{design}: {found}; finding {100 * c.effect:g} points takes {needed}"


def _settled(plan: "Plan", store: "Store", stages: Sequence[str]) -> int:
    return sum(store.settled(plan.stages[name].spec) for name in stages)


def _longest(plan: "Plan", cost: "CostEstimate") -> list[str]:
    """The chain of unfinished stages that takes longest; more machines cannot make the run shorter than that."""
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


def _plan_data(plan: "Plan", cost: "CostEstimate", chain: list[str]) -> dict[str, object]:
    from bench.matrix.power import planned_contrasts

    settings = plan.profile.settings
    return {
        "matrix": plan.spec.name,
        "question": plan.spec.question,
        "profile": plan.profile.name,
        "hardware": settings.hardware.model_dump(),
        "models": settings.model_dump(mode="json")["models"],
        "data": settings.data.model_dump(),
        "students": list(plan.students),
        "seeds": list(plan.seeds),
        "arms": list(dict.fromkeys(cell.arm for cell in plan.cells)),
        "excluded": dict(plan.spec.excluded),
        "cells": [
            {"arm": cell.arm, "student": cell.student, "seed": cell.seed, "stages": dict(cell.stages)}
            for cell in plan.cells
        ],
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
        "contrasts": [{**asdict(c), "runs": c.runs, "df": c.df} for c in planned_contrasts(plan)],
        "absent": plan.absent,
    }
