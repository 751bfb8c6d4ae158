"""The responses of a finished evaluation as predictions, so that they can be scored in another way."""

from dataclasses import dataclass
from pathlib import Path

from bench import summary
from bench.benchmarks.base import dataset_title
from bench.errors import ConfigurationError
from bench.evaluation.problem_table import read_problems
from bench.records import Frame, Prediction, Problem, Verdict

_FIELDS = ("id", "sample", "state", "extracted", "normalised", "method")


@dataclass(frozen=True, slots=True)
class ResultPredictions:
    """One benchmark of a result, without the responses that the engine failed on.

    title: name of the data set. problems: their images are bare file names. verdicts: strict, one per prediction.
    """

    title: str
    problems: tuple[Problem, ...]
    predictions: tuple[Prediction, ...]
    verdicts: tuple[Verdict, ...]


def result_predictions(path: Path, benchmark: str) -> ResultPredictions:
    """The predictions of the result in ``path`` or ``path/out``.

    Raises ConfigurationError if there is no result, or no response to the benchmark.
    """
    import pandas as pd

    folder = path / "out" if (path / "out").is_dir() else path
    if not (folder / "responses.parquet").is_file():
        raise ConfigurationError(f"{path}: holds no result (responses.parquet); give a directory that `eval` wrote")
    keys = ["benchmark", "id", "sample"]
    texts = pd.read_parquet(folder / "responses.parquet")[[*keys, "text"]]
    table: Frame = pd.read_parquet(folder / "verdicts.parquet").merge(texts, on=keys)
    rows = table[(table["benchmark"] == benchmark) & (table["state"] != "error")].to_dict("records")
    if not rows:
        others = ", ".join(map(str, table["benchmark"].unique()))
        raise ConfigurationError(f"{path}: holds no responses to {benchmark}, only to {others}")
    part = summary.read(folder).benchmarks[benchmark]
    return ResultPredictions(
        dataset_title(part.dataset, part.synthetic),
        tuple(problem for problem in read_problems(folder) if problem.benchmark == benchmark),
        tuple(Prediction(row["id"], row["sample"], row["text"]) for row in rows),
        tuple(Verdict(**{name: row[name] for name in _FIELDS}) for row in rows),
    )
