"""The files of ``vold-bench train``, ``traces`` and ``preflight``: each describes one stage."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bench.errors import ConfigurationError, InfrastructureError
from bench.matrix.yaml_file import YamlFile
from bench.model_source import parse_model
from bench.smallworld.sources import SMALLWORLD, generated_data_path, prompts_path
from vold.config import RLConfig, SFTConfig, Strict, TracesConfig
from vold.data.images import cache_directory
from vold.data.sources import DataSource
from vold.execution import Execution

RunKind = Literal["traces", "sft", "rl"]


class _Run(Strict):
    """Fields of every file. Paths are relative to the file; ``run`` receives metrics, training states and ``out/``."""

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
    """The key of ``FORMS`` that fits the keys of a file, or None if that is not clear."""
    if "writer" in source.data:
        return "traces" if "student" not in source.data else None
    if ("traces" in source.data) == ("prompts" in source.data):
        return None
    return "sft" if "traces" in source.data else "rl"


def existing_data(source: YamlFile, key: str, text: str) -> DataSource:
    """Training data that exist, or are on the hub and are fetched on reading; raises ConfigurationError otherwise."""
    data = parse_data(source, key, text)
    if not data.revision and not Path(data.location).exists():
        source.fail((key,), f"nothing at {data.location}")
    return data


def parse_data(source: YamlFile, key: str, text: str) -> DataSource:
    """Any form of ``vold.data.sources``, or ``smallworld/SET?n=N``; raises ConfigurationError at its line otherwise."""
    try:
        if text.startswith(SMALLWORLD):
            return DataSource(str(prompts_path(text, generated_data_path(cache_directory().with_name("smallworld")))))
        return DataSource.parse(text, source.path.parent)
    except ValueError as error:
        source.fail((key,), str(error))


def model_path(source: YamlFile, key: str, text: str) -> Path:
    """The checkpoint that ``text`` names; a hub model is fetched. Raises ConfigurationError at its line otherwise."""
    try:
        return parse_model(text, source.path.parent).path()
    except ConfigurationError as error:
        source.fail((key,), str(error))


def described_model_path(source: YamlFile, key: str, text: str) -> Path:
    """The model's directory for a reader of its configuration and tokenizer, whether it exists or not.

    The weights of a hub model are not fetched. Raises ConfigurationError at its line for a name that names nothing.
    """
    try:
        model = parse_model(text, source.path.parent)
    except ConfigurationError as error:
        source.fail((key,), str(error))
    try:
        return model.path(weights=False)
    except (ConfigurationError, InfrastructureError):
        return Path(model.location)
