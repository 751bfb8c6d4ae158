"""``vold-bench train`` and ``vold-bench traces``: run one stage from a configuration file, without a matrix."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bench.cli.json_output import print_json
from bench.cli.options import Json, example
from bench.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bench.cli.train_file import RLRun, RunKind, SFTRun, TracesRun
    from bench.matrix.yaml_file import YamlFile
    from vold.training.progress import Progress

ConfigArgument = Annotated[Path, typer.Argument(help="A training file (YAML); docs/guide/training.md describes it.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Training processes, one per GPU. \\[default: `execution.processes` of the file]"),
]
app = typer.Typer(help="Train one stage from a configuration file.", no_args_is_help=True)


@app.command(epilog=example("vold-bench train sft sft.yaml"))
def sft(config: ConfigArgument, processes: ProcessesOption = None, as_json: Json = False) -> None:
    """Fine-tune a student on reasoning traces: the cold start. An interrupted run resumes."""
    _run("sft", config, as_json, processes)


@app.command(epilog=example("vold-bench train rl rl.yaml --processes 8"))
def rl(config: ConfigArgument, processes: ProcessesOption = None, as_json: Json = False) -> None:
    """Train a student with GRPO, on-policy distillation, or both. An interrupted run resumes."""
    _run("rl", config, as_json, processes)


def traces(config: ConfigArgument, as_json: Json = False) -> None:
    """Let a teacher answer prompts and keep its reasoning traces for the cold start."""
    _run("traces", config, as_json)


def _run(kind: "RunKind", path: Path, as_json: bool, processes: int | None = None) -> None:
    """Start or resume the run that a file describes; ``processes`` overrides the file's number.

    A process that torchrun started is one of these processes already. Raises ConfigurationError naming file, line
    and column.
    """
    from bench.cli.train_file import COMMANDS, FORMS, form_of
    from bench.display.training import training_view
    from bench.matrix.ranks import distribute, main_rank
    from bench.matrix.yaml_file import YamlFile
    from vold.training.progress import silent

    source = YamlFile(path)
    form = form_of(source)
    if form is not None and form != kind:
        source.fail((), f"this is a file for `{COMMANDS[form]}`, not for `{COMMANDS[kind]}`")
    settings = source.validate(FORMS[kind])
    run = (path.parent / settings.run).resolve()
    if not main_rank():
        return _work(settings, source, run, silent)
    claim(run, settings)
    execution = settings.execution.model_copy(update={"processes": processes or settings.execution.processes})
    with training_view(Console(stderr=True), kind, run) as view:
        rank = "bench.cli.train:train_rank"
        if kind == "traces" or not distribute(execution, rank, (kind, path), run, view):
            _work(settings, source, run, view)
    _show(kind, run / "out", as_json)


def _show(kind: "RunKind", out: Path, as_json: bool) -> None:
    name = "traces" if kind == "traces" else "checkpoint"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8")) if kind == "traces" else {}
    if as_json:
        return print_json({name: out, **summary})
    if summary:
        print(json.dumps(summary, indent=2))
    print(f"{name}: {out}")


def train_rank(kind: "RunKind", path: Path, progress: "Progress") -> None:
    """Run one rank's part of a training run."""
    from bench.cli.train_file import FORMS
    from bench.matrix.yaml_file import YamlFile

    source = YamlFile(path)
    settings = source.validate(FORMS[kind])
    _work(settings, source, (path.parent / settings.run).resolve(), progress)


def claim(out: Path, settings: "BaseModel") -> None:
    """Reserve the run directory ``out`` for these settings; raises ConfigurationError if it belongs to others.

    A directory that holds only ``run.json`` is free: that run was refused before it started.
    """
    own = settings.model_dump(mode="json", exclude={"execution"})
    text = json.dumps(own, indent=1, sort_keys=True) + "\n"
    record = out / "run.json"
    if record.exists() and len(list(out.iterdir())) > 1 and (recorded := record.read_text(encoding="utf-8")) != text:
        theirs = json.loads(recorded)
        changed = ", ".join(sorted(key for key in own | theirs if own.get(key) != theirs.get(key)))
        raise ConfigurationError(
            f"{out}: holds a run with other settings ({changed}); name another directory under `run`"
        )
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(text, encoding="utf-8")


def _work(settings: "TracesRun | SFTRun | RLRun", source: "YamlFile", out: Path, progress: "Progress") -> None:
    from bench.cli.train_file import SFTRun, TracesRun, existing_data, model_path

    shared = {"run": out, "seed": settings.seed, "execution": settings.execution, "progress": progress}
    if isinstance(settings, TracesRun):
        from vold.training.traces import write_traces

        writer, prompts = (
            model_path(source, "writer", settings.writer),
            existing_data(source, "prompts", settings.prompts),
        )
        write_traces(settings.config, writer=writer, prompts=prompts, **shared)
        return
    student = model_path(source, "student", settings.student)
    if isinstance(settings, SFTRun):
        from vold.training.sft import train_sft

        train_sft(settings.config, student=student, traces=existing_data(source, "traces", settings.traces), **shared)
    else:
        from vold.training.rl import train_rl

        teacher = model_path(source, "teacher", settings.teacher) if settings.teacher else None
        shared["prompts"] = existing_data(source, "prompts", settings.prompts)
        shared["validation"] = existing_data(source, "validation", settings.validation) if settings.validation else None
        train_rl(settings.config, student=student, teacher=teacher, **shared)
