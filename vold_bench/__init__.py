"""The public Python interface of vold-bench.

    import vold_bench

    matrix = vold_bench.open_matrix("ablations/cold_start.yaml")   # reads finished stages, runs nothing
    print(matrix.accuracy())

A script may rely on the names in ``__all__`` and on the public attributes of what they return. Everything else is
internal and may change. Importing this module is cheap: heavy libraries are imported by the first call that needs them.

Every data set goes by its own name here: generated problems appear as ``smallworld-...`` and are marked ``synthetic``,
whatever benchmark's form they have.

A script that calls ``run_matrix`` or ``evaluate`` must do so below ``if __name__ == "__main__":``, because stages run
in processes of their own, which import the script again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from bench.matrix.plan import Plan
    from bench.matrix.results import MatrixResults
    from bench.review.comparison import ResultComparison
    from bench.review.results import EvaluationResult
    from bench.scoring.scorer import Scores
    from bench.stats.estimates import Difference

__all__ = [
    "Evaluation",
    "Matrix",
    "compare",
    "evaluate",
    "open_matrix",
    "open_result",
    "results",
    "run_matrix",
    "score",
]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Matrix:
    """The finished stages of a matrix file as tables. Stages that are not finished are absent, never zero.

    missing: ids of the stages that are not finished.
    """

    _plan: "Plan"
    _store: Store

    @property
    def name(self) -> str:
        return self._plan.spec.name

    @property
    def question(self) -> str:
        return self._plan.spec.question

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(cell.arm for cell in self._plan.cells))

    @property
    def students(self) -> list[str]:
        """The names of the students: the last part of each source in the profile."""
        return list(self._plan.students)

    @property
    def seeds(self) -> list[int]:
        return list(self._plan.seeds)

    @cached_property
    def missing(self) -> list[str]:
        return [name for name in self._plan.stages if not self._store.done(name)]

    @property
    def verdicts(self) -> "pd.DataFrame":
        """One row per response: arm, student, seed, dataset, synthetic, id, sample, state, correct, tokens, ..."""
        return _named(self._results.verdicts)

    @property
    def sampled(self) -> "pd.DataFrame":
        """The rows of the second evaluation (``analysis.sampled`` in the matrix file), with the same columns.

        Its responses are sampled. It is empty if the matrix file asks for none.
        """
        return _named(self._results.sampled)

    @property
    def curves(self) -> "pd.DataFrame":
        """Training metrics in long form: arm, student, seed, stage (sft or rl), step, metric, value."""
        return self._results.curves

    @property
    def stages(self) -> "pd.DataFrame":
        """One row per arm, student, seed and stage: status, cpu_seconds, wall_seconds."""
        return self._results.stages

    def accuracy(self, *, sampled: bool = False) -> "pd.DataFrame":
        """Accuracy by arm and data set: n (responses), students, seeds, accuracy (mean over the responses, 0 to 1).

        sampled: of the second evaluation, whose rows are in ``sampled``, instead of the primary one.
        """
        import pandas as pd

        keys, rows = ["arm", "dataset", "synthetic"], self.sampled if sampled else self.verdicts
        if rows.empty:
            return pd.DataFrame(columns=[*keys, "n", "students", "seeds", "accuracy"])
        counts = {name: (name.removesuffix("s"), "nunique") for name in ("students", "seeds")}
        groups = rows.groupby(keys, sort=False)
        return groups.agg(n=("correct", "size"), **counts, accuracy=("correct", "mean")).reset_index()

    def contrasts(self, *, by_student: bool = False) -> "pd.DataFrame":
        """The registered contrasts: id, test, against, students, runs, difference, low, high (95 %), p, p_corrected,
        mde and verdict. Differences are shares from -1 to 1, of gains from -2 to 2.

        by_student: a row for each student instead, without the corrected columns and the verdict.
        A contrast without responses has no difference. Raises ConfigurationError where no evaluation is finished.
        """
        import pandas as pd

        from bench.report.contrasts import contrast_results
        from bench.report.tables import primary_rows

        spec = self._plan.spec
        rows = []
        for c in contrast_results(spec, primary_rows(spec, self._results), {}):
            sides = {"id": c.id, "test": c.comparison.test, "against": c.comparison.against}
            if by_student:
                rows += [{**sides, "student": name, **_interval(d)} for name, d in c.students.items()]
            elif c.difference is None:
                rows.append({**sides, "students": 0, "runs": 0, "verdict": c.verdict})
            else:
                corrected = {"p_corrected": c.adjusted_p, "mde": c.mde, "verdict": c.verdict}
                rows.append({**sides, "students": c.difference.students, **_interval(c.difference), **corrected})
        return pd.DataFrame(rows)

    def report(self, directory: PathLike) -> Path:
        """Write the report (page, Markdown, JSON, CSV, figures) into ``directory`` and return the page's path."""
        from bench.report import build_report

        return build_report(self._plan.spec, self._results, Path(directory))

    @cached_property
    def _results(self) -> "MatrixResults":
        from bench.matrix.results import load

        return load(self._plan, self._store)


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation of one model. ``id`` names it in its store; ``path`` is the directory of its tables."""

    id: str
    path: Path
    _result: "EvaluationResult"

    @property
    def model(self) -> str:
        return self._result.model

    @property
    def verdicts(self) -> "pd.DataFrame":
        """One row per response: dataset, synthetic, id, sample, state, correct, extracted, tokens, ..."""
        return _named(self._result.verdicts)

    @property
    def responses(self) -> "pd.DataFrame":
        """One row per response: dataset, id, sample, text, tokens, finish_reason, prompt_tokens, visual_tokens."""
        keys = ["benchmark", "id", "sample"]
        names = self._result.verdicts[[*keys, "dataset", "synthetic"]]
        return _named(names.merge(self._result.responses, on=keys))

    def accuracy(self) -> "pd.DataFrame":
        """Accuracy by data set: n (responses), accuracy and its 95 % interval low to high (by cluster), from 0 to 1."""
        import pandas as pd

        from bench.stats.cells import one_run
        from bench.stats.estimates import accuracy

        rows = []
        for dataset, part in self.verdicts.groupby("dataset", sort=False):
            estimate = accuracy(one_run(part.assign(benchmark=dataset)))
            row = {
                "dataset": dataset,
                "synthetic": bool(part["synthetic"].iloc[0]),
                "n": len(part),
                "accuracy": estimate.value,
            }
            rows.append({**row, "low": estimate.low, "high": estimate.high})
        return pd.DataFrame(rows)


def run_matrix(
    path: PathLike,
    *,
    profile: str = "small",
    seeds: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    jobs: int | None = None,
    store: PathLike | None = None,
    reports: PathLike | None = "reports",
) -> Matrix:
    """Run every stage of a matrix file that is not finished, write its report, and return its tables.

    profile: name of a bundled profile, or the path of one. seeds: instead of the file's. settings: dotted names such
    as ``{"rl.steps": 10}``, applied to every arm. only: names of the arms to run. jobs: stages that run in parallel.
    store: directory of finished stages (default: $VOLD_BENCH_STORE, otherwise results/store). reports: None writes
    none.

    Raises:
        ConfigurationError: the matrix file, a setting or an input is wrong.
        StageError: a stage failed; everything that finished is kept, and the same call resumes.
    """
    from rich.console import Console

    from bench.errors import ErrorClass, StageError
    from bench.matrix.run import complete

    home = _store(store)
    plan = _plan(path, home, profile, seeds, settings, only)
    pages = None if reports is None else Path(reports)
    run = complete(plan, home, jobs=jobs, reports=pages, console=Console(stderr=True))
    if run.failures:
        name, outcome = next(iter(run.failures.items()))
        message = f"{len(run.failures)} stages failed; the first is {name}: {outcome.message}"
        raise StageError(run.common_error or ErrorClass.FAILED, message)
    return Matrix(plan, home)


def open_matrix(
    path: PathLike,
    *,
    profile: str = "small",
    seeds: Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    store: PathLike | None = None,
) -> Matrix:
    """The finished stages of a matrix file; runs nothing. The arguments are those of ``run_matrix``."""
    home = _store(store)
    return Matrix(_plan(path, home, profile, seeds, settings, only), home)


def evaluate(
    models: str | Sequence[str],
    *,
    data: str | Sequence[str] = (),
    benchmarks: Sequence[str] = (),
    store: PathLike | None = None,
    reports: PathLike | None = None,
    seed: int = 0,
    execution: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[Evaluation]:
    """Evaluate models that have no result in the store yet, and return every result, in the order of ``models``.

    models: checkpoint directories, ``OWNER/NAME@REVISION`` of the hub, ``smallworld/NAME`` or ``URL#MODEL``.
    data: a directory of benchmark directories, or ``BENCHMARK=DIRECTORY``; default: generated small-world problems.
    benchmarks: only these. reports: directory for a report page. execution: nested settings of ``Execution``.
    settings: the options of ``vold-bench eval``, such as ``samples=4, temperature=1.0, prompt="boxed", limit=100``.

    Raises ConfigurationError for wrong input. An interrupted evaluation resumes from the saved responses.
    """
    from bench.benchmark_data import data_sources
    from bench.evaluate_models import EvaluationOutputs, evaluate_models
    from bench.evaluation_request import EvaluationRequest

    names = [models] if isinstance(models, str) else list(models)
    sources = data_sources([data] if isinstance(data, str) else list(data), list(benchmarks))
    request = EvaluationRequest(names, sources, settings, seed, execution or {})
    outputs = EvaluationOutputs(reports=None if reports is None else Path(reports))
    home = _store(store)
    return [open_result(model.stage, store=home.root) for model in evaluate_models(home, request, outputs)]


def open_result(name: PathLike, *, store: PathLike | None = None) -> Evaluation:
    """One finished evaluation, by its directory, its id, the beginning of its id, or its model's name.

    Raises ConfigurationError where there is none, or where several results of one model match.
    """
    return _evaluation(_find(name, store))


def results(store: PathLike | None = None) -> list[Evaluation]:
    """Every finished evaluation of a store, in the order of their ids."""
    from bench.review.results import results as finished

    return [_evaluation(result) for result in finished(_store(store))]


def score(
    predictions: PathLike,
    benchmark: str,
    *,
    data: PathLike | None = None,
    split: str | None = None,
    mode: Literal["strict", "official"] = "strict",
) -> "Scores":
    """Score a prediction file: ``verdicts``, ``correct``, ``accuracy``, ``states`` and ``missing`` ids.

    data: directory of the benchmark's records (default: $VOLD_BENCH_DATA/BENCHMARK). mode: ``strict`` guesses nothing;
    ``official`` is the published procedure. Raises ConfigurationError for files and ids that do not fit.
    """
    from bench.benchmark_data import benchmark_path
    from bench.scoring.predictions import find_records, read_predictions
    from bench.scoring.scorer import score_predictions

    rows = read_predictions(Path(predictions))
    root = benchmark_path(benchmark, [] if data is None else [str(data)])
    records = find_records(rows, Path(predictions), benchmark, root, split)
    return score_predictions(benchmark, records.problems, rows, mode)


def compare(a: PathLike, b: PathLike, *, store: PathLike | None = None) -> "ResultComparison":
    """B minus A on the problems that both answered: ``difference`` with interval and p, what else changed, counts.

    a, b: as ``open_result`` takes them. Raises ConfigurationError where they have no problem in common.
    """
    from bench.review.comparison import compare_results

    return compare_results(_find(a, store), _find(b, store))


def _plan(
    path: PathLike,
    store: Store,
    profile: str,
    seeds: Sequence[int] | None,
    settings: Mapping[str, Any] | None,
    only: Sequence[str],
) -> "Plan":
    from bench.matrix.plan import make_plan, parse_setting

    # JSON is YAML, which is what the value of a setting is read as.
    texts = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in (settings or {}).items()
    ]
    overrides = [parse_setting(text, "settings") for text in texts]
    return make_plan(Path(path), store, profile=profile, seeds=seeds, overrides=overrides, only=only)


def _find(name: PathLike, store: PathLike | None) -> "EvaluationResult":
    from bench.review.results import find_result

    return find_result(str(name), _store(store))


def _evaluation(result: "EvaluationResult") -> Evaluation:
    return Evaluation(result.id, result.path, result)


def _interval(difference: "Difference") -> dict[str, float]:
    d = difference
    return {"runs": d.runs, "difference": d.value, "low": d.low, "high": d.high, "p": d.p}


def _store(root: PathLike | None) -> Store:
    return Store(Path(os.environ.get("VOLD_BENCH_STORE", "results/store") if root is None else root))


def _named(frame: Any) -> "pd.DataFrame":
    """Rows without the name of the benchmark whose form they have: the data set's own name is in ``dataset``."""
    return frame.drop(columns=["benchmark", "record"], errors="ignore")
