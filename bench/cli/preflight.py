"""``vold-bench preflight``: what would go wrong, as one page."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cli.json_output import print_json
from bench.cli.options import Json, ProfileOption, open_store
from bench.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from bench.matrix.yaml_file import YamlFile
    from vold.preflight.devices import Device
    from vold.preflight.job import Job
    from vold.preflight.memory import MemoryEstimate
    from vold.preflight.run import PreflightReport
    from vold.preflight.templates import Rendering

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def preflight(
    config: Annotated[Path, typer.Argument(help="Training file of `train sft` or `train rl`, or a matrix file.")],
    profile: ProfileOption = "small",
    gpu: Annotated[
        str, typer.Option(help="GPUs to plan for, such as 'H200 x 8' or '48GB'. \\[default: this machine's]")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a training run before it starts. This reads files and settings and loads no weights."""
    from bench.matrix.yaml_file import YamlFile
    from vold.preflight.run import run_preflight

    source = YamlFile(config)
    matrix = str(source.data.get("schema", "")).startswith("vold-bench/matrix")
    jobs = _matrix_jobs(config, profile, gpu) if matrix else [_train_job(source, gpu)]
    report = run_preflight(jobs)
    if as_json:
        print_json(_data(jobs, report))
    else:
        _show(Console(), config, jobs, report)
    if not report.ok:
        raise typer.Exit(ExitCode.CONFIGURATION)


def _matrix_jobs(path: Path, profile: str, gpu: str) -> "list[Job]":
    from bench.matrix.plan import make_plan
    from bench.matrix.preflight import matrix_jobs

    store = open_store(None)
    jobs = matrix_jobs(make_plan(path, store, profile=profile), store, _device(gpu, "") if gpu else None)
    if not jobs:
        raise ConfigurationError(f"{path}: trains nothing: no arm has a stage sft or rl")
    return jobs


def _train_job(source: "YamlFile", gpu: str) -> "Job":
    """The run that ``vold-bench train`` starts from this file."""
    from bench.cli.train_file import FORMS, RLRun, SFTRun, TracesRun, described_model_path, form_of, parse_data
    from bench.matrix.yaml_file import setting_place
    from bench.model_source import parse_model
    from vold.preflight.job import Job

    kind = form_of(source)
    if kind == "traces":
        source.fail((), "this is a file for `vold-bench traces`; the preflight looks at training and matrix files")
    if kind is None:
        source.fail((), "expected `traces` (for train sft) or `prompts` (for train rl)")
    settings = source.validate(FORMS[kind])
    assert not isinstance(settings, TracesRun)
    data = ("traces", settings.traces) if isinstance(settings, SFTRun) else ("prompts", settings.prompts)
    teacher = settings.teacher if isinstance(settings, RLRun) else None
    models = [settings.student, *([teacher] if teacher else [])]
    return Job(
        config=settings.config,
        execution=settings.execution,
        student=described_model_path(source, "student", settings.student),
        teacher=described_model_path(source, "teacher", teacher) if teacher else None,
        data=parse_data(source, *data),
        run=(source.path.parent / settings.run).resolve(),
        device=_device(gpu, settings.execution.device),
        weights_here=not any(parse_model(name, source.path.parent).on_hub for name in models),
        where=lambda key: setting_place([source], key.split("."), key),
    )


def _device(gpu: str, kind: str) -> "Device | None":
    """The GPUs that ``--gpu`` names, or this machine's devices of the kind in the settings."""
    from vold.preflight.devices import parse_device, this_machine

    if not gpu:
        return this_machine(kind)
    try:
        return parse_device(gpu)
    except ValueError as problem:
        raise ConfigurationError(f"--gpu: {problem}") from None


def _data(jobs: "Sequence[Job]", report: "PreflightReport") -> dict[str, object]:
    return {
        "ok": report.ok,
        "runs": [
            {"kind": job.kind, "student": job.student, "teacher": job.teacher, "data": job.data} for job in jobs
        ],
        "findings": [{"theme": finding.theme, **asdict(finding)} for finding in report.findings],
        "unchecked": report.unchecked,
        "templates": [
            {"role": side.role, "path": side.path, **asdict(rendering)} for side, rendering in report.renderings
        ],
        "memory": [
            {"kind": job.kind, "device": job.device and asdict(job.device), "peak": each.peak, "at": each.moment,
             "parts": [asdict(part) for part in each.parts]}
            for job, each in report.estimates
        ],
    }  # fmt: skip


def _show(console: Console, path: Path, jobs: "Sequence[Job]", report: "PreflightReport") -> None:
    kinds = ", ".join(f"{sum(job.kind == kind for job in jobs)} {kind}" for kind in ("sft", "rl"))
    what = f"{jobs[0].kind} run" if len(jobs) == 1 else f"{len(jobs)} different runs ({kinds})"
    console.print(f"[bold]preflight[/bold] of {escape(str(path))}: {what}", highlight=False)
    for side in report.checkpoints:
        facts = f"{side.config.model_type}, {side.rows} output rows, context {side.context}"
        console.print(f"{side.role}: {escape(str(side.path))} ({facts})", highlight=False, soft_wrap=True)
    if report.renderings:
        console.print(_templates(report))
    for job, estimated in _widest(report):
        console.print(_memory(job, estimated))
    console.print(_findings(report))
    counts = {level: sum(finding.level == level for finding in report.findings) for level in _COLOURS}
    words = ", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items())
    verdict = "ready to train" if report.ok else "not ready: fix the errors first"
    console.print(f"{words}: {verdict}", highlight=False)


def _templates(report: "PreflightReport") -> Table:
    """One user turn as each model reads it, and the tokens that open the answer; equal ones share a column."""
    columns: dict[tuple[str, Rendering], list[str]] = {}
    for side, rendering in report.renderings:
        columns.setdefault((side.role, rendering), []).append(side.path.name)
    table = Table(title="the same question in each template", title_justify="left", show_lines=True)
    table.add_column("")
    for (role, _), names in columns.items():
        table.add_column(f"{role} {', '.join(names)}", overflow="fold")
    table.add_row("prompt", *(escape(rendering.prompt) for _, rendering in columns))
    tokens = [" ".join(map(repr, rendering.opening_tokens)) or "nothing" for _, rendering in columns]
    table.add_row("opening", *map(escape, tokens))
    return table


def _widest(report: "PreflightReport") -> "list[tuple[Job, MemoryEstimate]]":
    """The estimate with the highest peak of each kind of run."""
    found = {}
    for job, estimated in sorted(report.estimates, key=lambda pair: pair[1].peak):
        found[job.kind] = (job, estimated)
    return [found[kind] for kind in ("sft", "rl") if kind in found]


def _memory(job: "Job", estimated: "MemoryEstimate") -> Table:
    several = job.device is not None and job.device.count > 1
    against = f" on {'one of ' if several else ''}{job.device}" if job.device else ""
    title = f"memory of the {job.kind} run{against}, at worst"
    unit, size = ("GB", 1e9) if estimated.peak >= 1e9 else ("MB", 1e6)
    table = Table("part", "held", title=escape(title), title_justify="left")
    table.add_column(unit, justify="right")
    for part in estimated.parts:
        style = "" if part.moment in ("always", estimated.moment) else "dim"
        table.add_row(escape(part.name), part.moment, f"{part.bytes / size:,.1f}", style=style)
    table.add_section()
    table.add_row("sum at the widest moment", estimated.moment, f"{estimated.peak / size:,.1f}")
    return table


def _findings(report: "PreflightReport") -> Table:
    """Grouped by theme; a theme without findings is one line."""
    from vold.preflight.run import THEMES

    table = Table("theme", "", "what, where, and what to do", title="findings", title_justify="left", show_lines=True)
    for theme, about in THEMES.items():
        mine = [finding for finding in report.findings if finding.theme == theme]
        for finding in mine:
            level = f"[{_COLOURS[finding.level]}]{finding.level.value}[/]"
            name = finding.id.partition(".")[2]
            text = f"[bold]{escape(finding.message)}[/]\n[dim]{escape(finding.where)}[/]\n{escape(finding.fix)}"
            table.add_row(f"{theme}\n[dim]{name}[/]", level, text)
        if theme in report.unchecked:
            table.add_row(theme, "[dim]skipped[/]", f"[dim]{about}: {report.unchecked[theme]}[/]")
        elif not mine:
            table.add_row(theme, "[green]ok[/]", f"[dim]{about}[/]")
    return table
