"""``summary.json``: which model a finished evaluation asked, how, and what it measured on each benchmark."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FILE = "summary.json"
SCHEMA = "vold-bench/summary@1"


@dataclass(frozen=True, slots=True)
class Measure:
    """A share of problems in [0, 1] with its 95 % interval, as in ``bench.stats.estimates.Accuracy``."""

    value: float
    low: float
    high: float
    n: int
    items: int
    seeds: int
    mde: float


@dataclass(frozen=True, slots=True)
class Baselines:
    """Expected accuracies in [0, 1] without looking at the images.

    chance: guess the option of a choice uniformly, and answer nothing else. majority: always give the most frequent
    reference answer among the data set's problems of the same kind and number of options.
    """

    chance: float
    majority: float


@dataclass(frozen=True, slots=True)
class FirstPrompt:
    """The prompt of a benchmark's first problem.

    parts: the user's turn. sha256: hash of the turn. The other fields say how the model reads it, and are None if the
    engine does not report that. rendered: text with the chat template, image placeholders not yet expanded.
    image_grids: patches of each image, (time, height, width). visual_tokens: positions that each image takes.
    """

    id: str
    template: str
    parts: list[dict[str, object]]
    sha256: str
    rendered: str | None = None
    tokens: int | None = None
    token_ids_sha256: str | None = None
    image_grids: list[list[int]] | None = None
    visual_tokens: list[int] | None = None


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """``name`` is what people call the model; ``sha256`` tells its weights and settings from those of others."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ScoringRecord:
    mode: Literal["strict"]
    version: int


@dataclass(frozen=True, slots=True)
class BenchmarkSummary:
    """What an evaluation measured on one benchmark.

    passed_over: as in ``Dataset``.
    records: number of problems in the data set.
    problems: number of problems that the model was asked.
    records_sha256: hash of these problems and their images.
    unscorable: by id, why a problem was not asked.
    expected: number of responses without gaps.
    n: number of responses.
    accuracy: share of right responses among ``n``, in [0, 1].
    measures: avg@k, pass@k and maj@k; empty if there is no response.
    states: number of responses in each state.
    errors: the most frequent errors of the engine, with their number.
    tokens: sum over the completions.
    """

    dataset: str
    split: str
    synthetic: bool
    passed_over: dict[str, str]
    records: int
    problems: int
    records_sha256: str
    unscorable: dict[str, str]
    expected: int
    n: int
    accuracy: float | None
    measures: dict[str, Measure]
    baselines: Baselines
    states: dict[str, int]
    errors: dict[str, int]
    tokens: int
    prompt: FirstPrompt

    @property
    def missing(self) -> int:
        """The number of responses that the engine never gave."""
        return self.expected - self.n


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished evaluation.

    config: the values of ``EvalConfig``. engine: what the engine says of itself. measures: over the benchmarks that
    measure reasoning, or over all if none does, each with the same weight. lm_eval: version and results of lm-eval if
    the problems went through its interface.
    """

    config: dict[str, Any]
    seed: int
    model: ModelRecord
    engine: dict[str, Any]
    scoring: ScoringRecord
    measures: dict[str, Measure]
    benchmarks: dict[str, BenchmarkSummary]
    lm_eval: dict[str, object] | None = None
    schema: str = SCHEMA

    @property
    def samples(self) -> int:
        """Responses per problem."""
        return self.config["samples"]

    @property
    def missing(self) -> int:
        """The number of responses that the engine never gave."""
        return sum(part.missing for part in self.benchmarks.values())

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def read(folder: Path) -> Summary:
    """The summary in ``folder``. Raises ConfigurationError if it is absent, damaged or of another schema."""
    file = folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file}: cannot be read ({error}); {evaluate_again(folder)}") from error
    schema = content.get("schema") if isinstance(content, Mapping) else None
    if schema != SCHEMA:
        raise ConfigurationError(
            f"{file}: its schema is {schema or 'not named'}, but this version reads {SCHEMA}; {evaluate_again(folder)}"
        )
    try:
        return _adapter().validate_python(content)
    except ValueError as error:  # pydantic's ValidationError
        raise ConfigurationError(f"{file}: {_first_fault(error)}; {evaluate_again(folder)}") from error


def write(summary: Summary, folder: Path) -> None:
    text = json.dumps(summary.to_json(), indent=1, sort_keys=True)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def evaluate_again(folder: Path) -> str:
    """How to replace a damaged result, as the end of an error message."""
    return f"evaluate again with --fresh, or remove the result at {folder} and run its matrix again"


@cache
def _adapter() -> "TypeAdapter[Summary]":
    from pydantic import TypeAdapter

    return TypeAdapter(Summary)


def _first_fault(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}"
