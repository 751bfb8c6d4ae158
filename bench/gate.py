"""The regression check: compares a run with a baseline, paired by problem and by training step.

Each guarded value is tested for non-inferiority with an interval of the difference (run - baseline). It passes when
the interval is above -margin. It is a regression when the interval is below 0 and reaches -margin. Otherwise it is
inconclusive. The probability of a false alarm in any check of a run is at most ``FALSE_ALARM`` (Bonferroni correction,
simulated in the tests), so a failed check deserves attention.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field, ValidationError

from bench.errors import ConfigurationError, ErrorClass, ExitCode, VoldBenchError
from bench.records import Frame
from vold.config import Strict
from vold.files import write_whole

if TYPE_CHECKING:
    from bench.matrix.results import MatrixResults
    from bench.stats.cells import Cells
    from bench.stats.variance import Spread

RERECORD = "record a new one with `vold-bench check --update`"
FALSE_ALARM = 0.01
NON_INFERIORITY = 0.025
MARKS = {True: "1", False: "0"}
CheckOutcome = Literal["pass", "regression", "inconclusive"]
Names = tuple[str, ...]


class IncompleteRun(VoldBenchError):
    """The run lacks results that the baseline has, so it can neither pass nor fail.

    cause: the error class that all failed stages share, if there is one; it decides the exit code.
    """

    def __init__(self, message: str, cause: ErrorClass | None = None) -> None:
        super().__init__(message)
        self.cause = cause

    @property
    def exit_code(self) -> ExitCode:
        return self.cause.exit_code if self.cause else ExitCode.INCOMPLETE


class BaselineCell(Strict):
    """The results of one arm with one seed.

    verdicts: by benchmark, a string with 1 (correct), 0 (wrong) or - (missing) for each problem in order.
    training: by guarded metric, its values at the last training steps at which it was measured, by step.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # a measurement may be infinite or NaN, unlike a setting

    verdicts: dict[str, str]
    training: dict[str, dict[int, float]] = Field(default_factory=dict)


class RunSummary(Strict):
    """The results of a run as the baseline file stores them.

    spec: digest of arms, settings, models and prompts; the code is not part of it.
    versions: of the libraries, and ``cpu``, because another processor rounds differently.
    problems, clusters: by benchmark, the id and the cluster of each problem, in the same order.
    cells: by arm, then by seed.
    """

    schema_: Literal["vold-bench/check@1"] = Field(default="vold-bench/check@1", alias="schema")
    spec: str
    versions: dict[str, str]
    problems: dict[str, Names]
    clusters: dict[str, Names]
    cells: dict[str, dict[int, BaselineCell]]


class Margins(Strict):
    """How much worse a run may be: accuracy and reward in absolute terms, KL relative to the baseline."""

    accuracy: float = Field(default=0.05, gt=0)
    reward: float = Field(default=0.10, gt=0)
    kl_relative: float = Field(default=0.25, gt=0)


@dataclass(frozen=True, slots=True)
class Check:
    """One guarded value. ``difference``: run - baseline, with the sign that makes negative values mean worse."""

    name: str
    baseline: float
    run: float
    difference: float
    low: float
    high: float
    margin: float
    outcome: CheckOutcome
    remark: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """All checks of a run. ``notes``: other differences from the baseline, such as library versions."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        outcomes = {check.outcome for check in self.checks}
        if "regression" in outcomes:
            return ExitCode.REGRESSION
        return ExitCode.INCOMPLETE if "inconclusive" in outcomes else ExitCode.OK


def summarise(results: "MatrixResults") -> dict[str, object]:
    """Reduce results of a single student to the content of a baseline file, in plain JSON types.

    Perception is not guarded. Raises ConfigurationError for results of several students.
    """
    from bench.benchmarks.registry import pooled
    from bench.report.tables import last_steps, rl_curves

    rows: Frame = results.verdicts
    if "benchmark" not in rows:
        raise IncompleteRun("the run has no verdicts; see the stages' log.txt")
    if rows["student"].nunique() > 1:
        raise ConfigurationError("the check takes one student; name a single one under models.student in its profile")
    rows = rows[rows["benchmark"].isin(pooled(rows["benchmark"].unique()))]
    table = rows[["benchmark", "id", "cluster"]].drop_duplicates().sort_values(["benchmark", "id"])
    by_benchmark = {str(name): group for name, group in table.groupby("benchmark", sort=True)}
    problems = {name: [str(value) for value in group["id"]] for name, group in by_benchmark.items()}
    origin = results.provenance
    curves = last_steps(rl_curves(results))
    cells: dict[str, dict[str, object]] = {}
    for (arm, seed), group in rows[rows["sample"] == 0].groupby(["arm", "seed"], sort=True):
        columns = (group["benchmark"], group["id"], group["correct"])
        marks = {(benchmark, id): MARKS[bool(correct)] for benchmark, id, correct in zip(*columns, strict=True)}
        verdicts = {name: "".join(marks.get((name, id), "-") for id in ids) for name, ids in problems.items()}
        training = {}
        for metric in ("reward_mean", "kl"):
            rows_of_cell = (curves["arm"] == arm) & (curves["seed"] == seed) & (curves["metric"] == metric)
            curve = curves[rows_of_cell].sort_values("step")
            if len(curve):
                training[metric] = {str(s): round(v, 9) for s, v in zip(curve["step"], curve["value"], strict=True)}
        cells.setdefault(str(arm), {})[str(seed)] = {"verdicts": verdicts, "training": training}
    return {
        "schema": "vold-bench/check@1",
        "spec": _spec_digest(results),
        "versions": {"cpu": origin["processor"], **{k: str(v) for k, v in sorted(origin["versions"].items())}},
        "problems": problems,
        "clusters": {name: [str(value) for value in group["cluster"]] for name, group in by_benchmark.items()},
        "cells": cells,
    }


def _spec_digest(results: "MatrixResults") -> str:
    from bench.store import digest

    settings = {f"{arm}/{kind}": value for (arm, kind), value in results.settings.items()}
    # Problems are compared by id. The hash of their files changes with the code of the generator, even if no problem
    # changes.
    inputs = {k: sorted(v) for k, v in results.provenance["inputs"].items() if not k.startswith("data.")}
    return digest({"settings": settings, "inputs": inputs})[:16]


def check(run: RunSummary, baseline: RunSummary, margins: Margins) -> GateResult:
    """Compare two summaries of one specification.

    Raises ConfigurationError when specification, problems, arms or seeds differ from the baseline's, and IncompleteRun
    when the run lacks responses or training steps that the baseline has.
    """
    _require_same(run, baseline)
    guarded = [(arm, metric) for arm in baseline.cells for metric in _metrics(baseline, arm)]
    level = FALSE_ALARM / (len(baseline.cells) + len(guarded))
    checks = [_accuracy(run, baseline, arm, margins.accuracy, level) for arm in baseline.cells]
    checks += [_training(run, baseline, arm, metric, margins, level) for arm, metric in guarded]
    notes = tuple(
        f"{name}: {run.versions.get(name, 'absent')} here, {version} in the baseline"
        for name, version in baseline.versions.items()
        if run.versions.get(name) != version
    )
    return GateResult(tuple(checks), notes)


def _require_same(run: RunSummary, baseline: RunSummary) -> None:
    def shape(summary: RunSummary) -> dict[str, list[int]]:
        return {arm: sorted(seeds) for arm, seeds in summary.cells.items()}

    for name, ours, theirs in (
        ("specification", run.spec, baseline.spec),
        ("set of problems", run.problems, baseline.problems),
        ("set of arms or seeds", shape(run), shape(baseline)),
    ):
        if ours != theirs:
            raise ConfigurationError(f"the baseline has another {name} than this run; {RERECORD}")
    for arm, seeds in baseline.cells.items():
        for seed, cell in seeds.items():
            for name, bits in cell.verdicts.items():
                ours = run.cells[arm][seed].verdicts.get(name, "")
                if len(bits) != len(baseline.problems.get(name, ())):
                    raise ConfigurationError(f"the baseline is damaged at {arm}, seed {seed}, {name}; {RERECORD}")
                missing = sum(b != "-" and (i >= len(ours) or ours[i] == "-") for i, b in enumerate(bits))
                if missing:
                    raise IncompleteRun(f"{arm}, seed {seed}, {name}: {missing} responses are missing")


def _metrics(summary: RunSummary, arm: str) -> list[str]:
    return sorted({metric for cell in summary.cells[arm].values() for metric in cell.training})


def _accuracy(run: RunSummary, baseline: RunSummary, arm: str, margin: float, level: float) -> Check:
    from bench.stats.variance import mean_and_spread

    ours, theirs = (_cells(summary, arm, summary) for summary in (run, baseline))
    paired = _cells(run, arm, baseline, paired=True)
    difference, spread = mean_and_spread(paired)
    return _compare(
        f"{arm}: accuracy",
        mean_and_spread(theirs)[0],
        mean_and_spread(ours)[0],
        (difference, spread),
        margin,
        level,
        paired.items,
        "problems",
    )


def _cells(run: RunSummary, arm: str, baseline: RunSummary, paired: bool = False) -> "Cells":
    """Scores of ``run``, or with ``paired`` their differences from ``baseline``, of the problems that both have."""
    import numpy as np

    from bench.stats.cells import Cells

    rows = []
    for number, name in enumerate(baseline.problems):
        for seed_number, (seed, cell) in enumerate(sorted(baseline.cells[arm].items())):
            ours, theirs = run.cells[arm][seed].verdicts[name], cell.verdicts[name]
            for index, (here, there) in enumerate(zip(ours, theirs, strict=True)):
                if "-" in (here, there):
                    continue
                score = float(here == "1") - (float(there == "1") if paired else 0.0)
                cluster, item = (number, baseline.clusters[name][index]), (number, index)
                rows.append((score, number, seed_number, cluster, item))
    score, stratum, seeds, clusters, items = zip(*rows, strict=True)
    codes = {cluster: code for code, cluster in enumerate(dict.fromkeys(clusters))}
    return Cells(
        score=np.array(score),
        stratum=np.array(stratum),
        student=np.zeros(len(rows), int),
        run=np.array(seeds),
        cluster=np.array([codes[cluster] for cluster in clusters]),
        items=len(set(items)),
        samples=len(rows),
    )


def _training(run: RunSummary, baseline: RunSummary, arm: str, metric: str, margins: Margins, level: float) -> Check:
    """Compare the last steps, paired by step and seed, because both runs had the same prompts at each step."""
    import numpy as np

    from bench.stats.variance import Spread

    pairs = []
    for seed, cell in baseline.cells[arm].items():
        ours = run.cells[arm][seed].training.get(metric, {})
        for step, value in cell.training[metric].items():
            if step not in ours:
                raise IncompleteRun(f"{arm}, seed {seed}: {metric} lacks step {step}")
            pairs.append((ours[step], value))
    here, there = (np.array(side) for side in zip(*pairs, strict=True))
    higher_is_better = metric == "reward_mean"
    differences = here - there if higher_is_better else there - here
    variance = float(differences.var(ddof=1)) / len(pairs) if len(pairs) > 1 else math.inf
    margin = margins.reward if higher_is_better else margins.kl_relative * max(float(there.mean()), 0.1)
    spread = Spread(0.0, 0.0 if not differences.any() else variance, 0, max(len(pairs) - 1, 1))
    name = f"{arm}: final {'reward' if higher_is_better else 'teacher KL'}"
    estimate = (float(differences.mean()), spread)
    return _compare(name, float(there.mean()), float(here.mean()), estimate, margin, level, len(pairs), "steps")


def _compare(
    name: str,
    baseline: float,
    run: float,
    estimate: tuple[float, "Spread"],
    margin: float,
    level: float,
    n: int,
    unit: str,
) -> Check:
    """Decide by the position of the difference's interval between -margin and 0."""
    from bench.stats.decisions import items_needed

    difference, spread = estimate
    low, high = difference - spread.reach(1 - NON_INFERIORITY), difference + spread.reach(1 - level)
    outcome: CheckOutcome = "pass" if low > -margin else "regression" if high < 0 else "inconclusive"
    remark = ""
    if outcome == "inconclusive":
        # The standard deviation per problem or step that would give this interval, with clusters and all corrections.
        sd = spread.reach(1 - NON_INFERIORITY) / 1.96 * math.sqrt(n)
        remark = f"needs n = {items_needed(margin, sd)} {unit}, has {n}" if math.isfinite(sd) else f"needs more {unit}"
    return Check(name, baseline, run, difference, low, high, margin, outcome, remark)


def read_baseline(path: Path) -> RunSummary:
    """Read a baseline file; raises ConfigurationError when it is missing, not JSON, or has another schema."""
    try:
        return RunSummary.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no baseline; {RERECORD}") from error
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(f"{path}: the baseline cannot be read; {RERECORD}") from error


def write_baseline(summary: RunSummary, path: Path) -> None:
    """Write a baseline file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, summary.model_dump_json(by_alias=True, indent=1) + "\n")
