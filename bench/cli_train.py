"""``vold-bench train`` and ``traces``: one stage from a configuration file, without a matrix."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from rich.console import Console

from bench.datasets import SMALLWORLD, generated, prompts_path
from bench.errors import ConfigurationError
from bench.live import training_view
from bench.matrix.source import Source
from bench.ranks import launches, main_rank, run_on_ranks
from vold.config import Execution, RLConfig, SFTConfig, Strict, TracesConfig
from vold.data.pictures import cache_directory
from vold.data.sources import DataSource
from vold.training.progress import Progress, silent


class _Run(Strict):
    """What all forms share; paths are relative to the file. ``run`` receives metrics, checkpoints and ``out/``."""

    run: str
    seed: int = Field(default=0, ge=0)
    execution: Execution = Execution()


class TracesRun(_Run):
    schema_: Literal["vold-bench/traces@1"] = Field(alias="schema")
    writer: str
    prompts: str
    config: TracesConfig = TracesConfig()


class SFTRun(_Run):
    schema_: Literal["vold-bench/train@1"] = Field(alias="schema")
    student: str
    traces: str
    config: SFTConfig = SFTConfig()


class RLRun(_Run):
    schema_: Literal["vold-bench/train@1"] = Field(alias="schema")
    student: str
    prompts: str
    validation: str | None = None
    teacher: str | None = None
    config: RLConfig = RLConfig()


FORMS: dict[str, type[TracesRun] | type[SFTRun] | type[RLRun]] = {"traces": TracesRun, "sft": SFTRun, "rl": RLRun}
COMMANDS = {"traces": "vold-bench traces", "sft": "vold-bench train sft", "rl": "vold-bench train rl"}


def run(kind: Literal["traces", "sft", "rl"], path: Path, processes: int | None = None) -> None:
    """Work, or go on with what the run directory holds; raises ConfigurationError naming file, line and column.

    ``processes`` overrides the file's; where torchrun has started this process it is one of them already.
    """
    source = Source(path)
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
        if kind != "traces" and launches(execution):
            run_on_ranks(execution.processes, "bench.cli_train:train_rank", (kind, path), out, view)
        else:
            _work(settings, source, out, view)
    if isinstance(settings, TracesRun):
        print((out / "out" / "summary.json").read_text(encoding="utf-8").rstrip())
    print(f"{'traces' if isinstance(settings, TracesRun) else 'checkpoint'}: {out / 'out'}")


def form_of(source: Source) -> Literal["traces", "sft", "rl"] | None:
    """Which of ``FORMS`` the file means to be, by its keys; None where that is not clear."""
    if "writer" in source.data:
        return "traces" if "student" not in source.data else None
    if ("traces" in source.data) == ("prompts" in source.data):
        return None
    return "sft" if "traces" in source.data else "rl"


def train_rank(kind: Literal["sft", "rl"], path: Path, progress: Progress) -> None:
    """One rank's part of ``run``."""
    source = Source(path)
    settings = source.validate(FORMS[kind])
    _work(settings, source, (path.parent / settings.run).resolve(), progress)


def claim(out: Path, settings: BaseModel) -> None:
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


def _work(settings: TracesRun | SFTRun | RLRun, source: Source, out: Path, progress: Progress) -> None:
    shared = {"run": out, "seed": settings.seed, "execution": settings.execution, "progress": progress}
    if isinstance(settings, TracesRun):
        from vold.data.tracing import write_traces

        writer, prompts = _path(source, "writer", settings.writer), _data(source, "prompts", settings.prompts)
        write_traces(settings.config, writer=writer, prompts=prompts, **shared)
        return
    student = _path(source, "student", settings.student)
    if isinstance(settings, SFTRun):
        from vold.training.sft import train_sft

        train_sft(settings.config, student=student, traces=_data(source, "traces", settings.traces), **shared)
    else:
        from vold.training.rl import train_rl

        teacher = _path(source, "teacher", settings.teacher) if settings.teacher else None
        shared["prompts"] = _data(source, "prompts", settings.prompts)
        shared["validation"] = _data(source, "validation", settings.validation) if settings.validation else None
        train_rl(settings.config, student=student, teacher=teacher, **shared)


def _data(source: Source, key: str, text: str) -> DataSource:
    """Training data that are there, or on the hub, which are fetched when they are read; raises ConfigurationError."""
    data = parse_data(source, key, text)
    if not data.revision and not Path(data.place).exists():
        source.fail((key,), f"nothing at {data.place}")
    return data


def parse_data(source: Source, key: str, text: str) -> DataSource:
    """Any form of ``vold.data.sources``, or ``smallworld/SET?n=N``; raises ConfigurationError at its line otherwise."""
    try:
        if text.startswith(SMALLWORLD):
            return DataSource(str(prompts_path(text, generated(cache_directory().with_name("smallworld")))))
        return DataSource.parse(text, source.path.parent)
    except ValueError as error:
        source.fail((key,), str(error))


def _path(source: Source, key: str, text: str) -> Path:
    """A path of the file that is there; raises ConfigurationError at its line when it is not."""
    path = resolve(source, key, text)
    if not path.exists():
        mend = "give a checkpoint directory (`hf download OWNER/NAME --local-dir DIRECTORY`) or smallworld/NAME"
        source.fail((key,), f"nothing at {path}; {mend}")
    return path


def resolve(source: Source, key: str, text: str) -> Path:
    """A path relative to the file, or ``smallworld/NAME``; raises ConfigurationError for an unknown name."""
    from bench.smallworld import checkpoint_path

    if not text.startswith(SMALLWORLD):
        return (source.path.parent / Path(text).expanduser()).resolve()
    try:
        return checkpoint_path(text.removeprefix(SMALLWORLD))
    except KeyError as error:
        source.fail((key,), error.args[0])
