"""The responses of a finished evaluation as predictions, for whoever scores them in another way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import summary
from bench.benchmarks.base import dataset_title
from bench.errors import ConfigurationError
from bench.evaluation.problem_table import read_problems
from bench.records import Prediction, Problem, Verdict

_FIELDS = ("id", "sample", "state", "extracted", "normalised", "method")


@dataclass(frozen=True, slots=True)
class Answered:
    """One benchmark of a result: problems (their images are bare names), responses, and the strict verdicts on them.

    Responses that the engine failed on are left out. ``title`` is the data set's.
    """

    title: str
    problems: tuple[Problem, ...]
    predictions: tuple[Prediction, ...]
    verdicts: tuple[Verdict, ...]


def answered(place: Path, benchmark: str) -> Answered:
    """What the result at ``place``, or in its ``out``, holds of a benchmark.

    Raises ConfigurationError where there is no result, or no response to the benchmark.
    """
    import pandas as pd

    folder = place / "out" if (place / "out").is_dir() else place
    if not (folder / "responses.parquet").is_file():
        raise ConfigurationError(f"{place}: holds no result (responses.parquet); give what `vold-bench eval` wrote")
    keys = ["benchmark", "id", "sample"]
    texts = pd.read_parquet(folder / "responses.parquet")[[*keys, "text"]]
    table: Any = pd.read_parquet(folder / "verdicts.parquet").merge(texts, on=keys)
    rows = table[(table["benchmark"] == benchmark) & (table["state"] != "error")].to_dict("records")
    if not rows:
        asked = ", ".join(map(str, table["benchmark"].unique()))
        raise ConfigurationError(f"{place}: holds no responses to {benchmark}, but to {asked}")
    part = summary.read(folder).benchmarks[benchmark]
    return Answered(
        dataset_title(part.dataset, part.synthetic),
        tuple(problem for problem in read_problems(folder) if problem.benchmark == benchmark),
        tuple(Prediction(row["id"], row["sample"], row["text"]) for row in rows),
        tuple(Verdict(**{name: row[name] for name in _FIELDS}) for row in rows),
    )
