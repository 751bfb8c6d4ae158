"""``vold-bench train`` and ``traces``: one stage from a configuration file, without a matrix."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bench.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bench.cli.train_file import RLRun, RunKind, SFTRun, TracesRun
    from bench.matrix.yaml_file import YamlFile
    from vold.training.progress import Progress

ConfigArgument = Annotated[Path, typer.Argument(help="A training file (YAML); docs/guide/training.md describes it.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that share the training, one a GPU \\[default: the file's].")
]
app = typer.Typer(help="Train one stage from a configuration file.", no_args_is_help=True)


@app.command()
def sft(config: ConfigArgument, processes: ProcessesOption = None) -> None:
    """Supervised fine-tuning on traces: the cold start."""
    _run("sft", config, processes)


@app.command()
def rl(config: ConfigArgument, processes: ProcessesOption = None) -> None:
    """GRPO, on-policy distillation, or both."""
    _run("rl", config, processes)


def traces(config: ConfigArgument) -> None:
    """Reasoning traces: a teacher answers prompts, for the cold start to imitate."""
    _run("traces", config)


def _run(kind: "RunKind", path: Path, processes: int | None = None) -> None:
    """Work, or go on with what the run directory holds; raises ConfigurationError naming file, line and column.

    ``processes`` overrides the file's; where torchrun has started this process it is one of them already.
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
    out = (path.parent / settings.run).resolve()
    if not main_rank():
        return _work(settings, source, out, silent)
    claim(out, settings)
    execution = settings.execution.model_copy(update={"processes": processes or settings.execution.processes})
    with training_view(Console(stderr=True), kind, out) as view:
        rank = "bench.cli.train:train_rank"
        if kind == "traces" or not distribute(execution, rank, (kind, path), out, view):
            _work(settings, source, out, view)
    if kind == "traces":
        print((out / "out" / "summary.json").read_text(encoding="utf-8").rstrip())
    print(f"{'traces' if kind == 'traces' else 'checkpoint'}: {out / 'out'}")


def train_rank(kind: "RunKind", path: Path, progress: "Progress") -> None:
    """One rank's part of a run."""
    from bench.cli.train_file import FORMS
    from bench.matrix.yaml_file import YamlFile

    source = YamlFile(path)
    settings = source.validate(FORMS[kind])
    _work(settings, source, (path.parent / settings.run).resolve(), progress)


def claim(out: Path, settings: "BaseModel") -> None:
    """Make ``out`` the run of these settings; raises ConfigurationError when it belongs to others.

    A directory that holds nothing but its record belongs to nobody: that run was refused before it began.
    """
    mine = settings.model_dump(mode="json", exclude={"execution"})
    text = json.dumps(mine, indent=1, sort_keys=True) + "\n"
    record = out / "run.json"
    if record.exists() and len(list(out.iterdir())) > 1 and (held := record.read_text(encoding="utf-8")) != text:
        theirs = json.loads(held)
        changed = ", ".join(sorted(key for key in mine | theirs if mine.get(key) != theirs.get(key)))
        raise ConfigurationError(
            f"{out}: holds a run with other settings ({changed}); name another directory under `run`"
        )
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(text, encoding="utf-8")


def _work(settings: "TracesRun | SFTRun | RLRun", source: "YamlFile", out: Path, progress: "Progress") -> None:
    from bench.cli.train_file import SFTRun, TracesRun, existing_data, existing_path

    shared = {"run": out, "seed": settings.seed, "execution": settings.execution, "progress": progress}
    if isinstance(settings, TracesRun):
        from vold.training.traces import write_traces

        writer, prompts = (
            existing_path(source, "writer", settings.writer),
            existing_data(source, "prompts", settings.prompts),
        )
        write_traces(settings.config, writer=writer, prompts=prompts, **shared)
        return
    student = existing_path(source, "student", settings.student)
    if isinstance(settings, SFTRun):
        from vold.training.sft import train_sft

        train_sft(settings.config, student=student, traces=existing_data(source, "traces", settings.traces), **shared)
    else:
        from vold.training.rl import train_rl

        teacher = existing_path(source, "teacher", settings.teacher) if settings.teacher else None
        shared["prompts"] = existing_data(source, "prompts", settings.prompts)
        shared["validation"] = existing_data(source, "validation", settings.validation) if settings.validation else None
        train_rl(settings.config, student=student, teacher=teacher, **shared)
