"""What ``vold-bench train``, ``traces`` and ``preflight`` read: one stage, described in a file of its own."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.matrix.yaml_file import YamlFile
from bench.smallworld.sources import SMALLWORLD, generated_data_path, prompts_path
from vold.config import Execution, RLConfig, SFTConfig, Strict, TracesConfig
from vold.data.images import cache_directory
from vold.data.sources import DataSource

RunKind = Literal["traces", "sft", "rl"]


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


def form_of(source: YamlFile) -> RunKind | None:
    """Which of ``FORMS`` the file means to be, by its keys; None where that is not clear."""
    if "writer" in source.data:
        return "traces" if "student" not in source.data else None
    if ("traces" in source.data) == ("prompts" in source.data):
        return None
    return "sft" if "traces" in source.data else "rl"


def existing_data(source: YamlFile, key: str, text: str) -> DataSource:
    """Training data that are there, or on the hub, which are fetched when they are read; raises ConfigurationError."""
    data = parse_data(source, key, text)
    if not data.revision and not Path(data.place).exists():
        source.fail((key,), f"nothing at {data.place}")
    return data


def parse_data(source: YamlFile, key: str, text: str) -> DataSource:
    """Any form of ``vold.data.sources``, or ``smallworld/SET?n=N``; raises ConfigurationError at its line otherwise."""
    try:
        if text.startswith(SMALLWORLD):
            return DataSource(str(prompts_path(text, generated_data_path(cache_directory().with_name("smallworld")))))
        return DataSource.parse(text, source.path.parent)
    except ValueError as error:
        source.fail((key,), str(error))


def existing_path(source: YamlFile, key: str, text: str) -> Path:
    """A path of the file that is there; raises ConfigurationError at its line when it is not."""
    path = resolve(source, key, text)
    if not path.exists():
        mend = "give a checkpoint directory (`hf download OWNER/NAME --local-dir DIRECTORY`) or smallworld/NAME"
        source.fail((key,), f"nothing at {path}; {mend}")
    return path


def resolve(source: YamlFile, key: str, text: str) -> Path:
    """A path relative to the file, or ``smallworld/NAME``; raises ConfigurationError for an unknown name."""
    from bench.smallworld import checkpoint_path

    if not text.startswith(SMALLWORLD):
        return (source.path.parent / Path(text).expanduser()).resolve()
    try:
        return checkpoint_path(text.removeprefix(SMALLWORLD))
    except KeyError as error:
        source.fail((key,), error.args[0])
