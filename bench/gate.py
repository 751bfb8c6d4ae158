"""The regression check's judgement: a run against a baseline, paired item by item and step by step.

Each guarded value is tested for non-inferiority: *pass* when the interval of (run - baseline) stays above
-margin, *regression* when it lies below 0 and reaches -margin, *inconclusive* otherwise. A false alarm in any of
the checks of a run is held below ``FALSE_ALARM`` (Bonferroni; simulated in the tests), so a red check is news.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from bench.errors import ConfigurationError, ErrorClass, ExitCode, VoldBenchError
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
    """The run lacks what the baseline holds, so it can neither pass nor fail; ``cause``: why its stages failed."""

    def __init__(self, message: str, cause: ErrorClass | None = None) -> None:
        super().__init__(message)
        self.cause = cause

    @property
    def exit_code(self) -> ExitCode:
        return self.cause.exit_code if self.cause else ExitCode.INCOMPLETE


class BaselineCell(Strict):
    """One arm under one seed: per benchmark a string with 1 (right), 0 or - (missing) for each problem in order;
    per guarded metric its values at the last training steps, those measured, by step."""

    model_config = ConfigDict(allow_inf_nan=True)  # what a run measured, not what it was told

    verdicts: dict[str, str]
    training: dict[str, dict[int, float]] = Field(default_factory=dict)


class RunSummary(Strict):
    """What the baseline file stores. ``spec`` identifies arms, settings, models and prompts, not the code;
    ``versions`` are those of the libraries, and ``cpu``: another processor rounds otherwise.

    ``problems`` and ``clusters`` run parallel; ``cells`` is keyed by arm, then by seed.
    """

    schema_: Literal["vold-bench/check@1"] = Field(default="vold-bench/check@1", alias="schema")
    spec: str
    versions: dict[str, str]
    problems: dict[str, Names]
    clusters: dict[str, Names]
    cells: dict[str, dict[int, BaselineCell]]


class Margins(Strict):
    """How much worse a run may be: accuracy and reward as shares, KL as a share of the baseline's own."""

    accuracy: float = Field(default=0.05, gt=0)
    reward: float = Field(default=0.10, gt=0)
    kl_relative: float = Field(default=0.25, gt=0)


@dataclass(frozen=True, slots=True)
class Check:
    """One guarded value; ``difference`` is run - baseline with the sign that makes less mean worse."""

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
    """All checks of a run; ``notes`` say what else differs, such as library versions."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        outcomes = {check.outcome for check in self.checks}
        if "regression" in outcomes:
            return ExitCode.REGRESSION
        return ExitCode.INCOMPLETE if "inconclusive" in outcomes else ExitCode.OK


def summarise(results: "MatrixResults") -> dict[str, Any]:
    """Reduce results to what the baseline stores; plain JSON types, the same for the same results."""
    from bench.report.tables import last_steps, rl_curves

    rows: Any = results.verdicts
    if "benchmark" not in rows:
        raise IncompleteRun("the run has no verdicts; see the stages' log.txt")
    table: Any = rows[["benchmark", "id", "cluster"]].drop_duplicates().sort_values(["benchmark", "id"])
    order = {str(name): group for name, group in table.groupby("benchmark", sort=True)}
    problems = {name: [str(value) for value in group["id"]] for name, group in order.items()}
    origin = results.provenance
    curves: Any = last_steps(rl_curves(results))
    cells: dict[str, dict[str, Any]] = {}
    for (arm, seed), group in rows[rows["sample"] == 0].groupby(["arm", "seed"], sort=True):
        right = {(b, i): bool(c) for b, i, c in zip(group["benchmark"], group["id"], group["correct"], strict=True)}
        bits = {
            name: "".join(MARKS[right[name, i]] if (name, i) in right else "-" for i in ids)
            for name, ids in problems.items()
        }
        training = {}
        for metric in ("reward_mean", "kl"):
            own = curves[(curves["arm"] == arm) & (curves["seed"] == seed) & (curves["metric"] == metric)]
            last = own.sort_values("step")
            if len(last):
                training[metric] = {str(s): round(v, 9) for s, v in zip(last["step"], last["value"], strict=True)}
        cells.setdefault(str(arm), {})[str(seed)] = {"verdicts": bits, "training": training}
    return {
        "schema": "vold-bench/check@1",
        "spec": _spec_digest(results),
        "versions": {"cpu": origin["processor"], **{k: str(v) for k, v in sorted(origin["versions"].items())}},
        "problems": problems,
        "clusters": {name: [str(value) for value in group["cluster"]] for name, group in order.items()},
        "cells": cells,
    }


def _spec_digest(results: "MatrixResults") -> str:
    from bench.store import digest

    settings = {f"{arm}/{kind}": value for (arm, kind), value in results.settings.items()}
    # Problems are compared by name; their files change with the generator's code even where no problem does.
    inputs = {k: sorted(v) for k, v in results.provenance["inputs"].items() if not k.startswith("data.")}
    return digest({"settings": settings, "inputs": inputs})[:16]


def check(run: RunSummary, baseline: RunSummary, margins: Margins) -> GateResult:
    """Compare two summaries of one specification.

    Raises:
        ConfigurationError: another specification, other problems, arms or seeds than the baseline's.
        IncompleteRun: responses or training steps that the baseline has are missing.
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

    for what, ours, theirs in (
        ("specification", run.spec, baseline.spec),
        ("problems", run.problems, baseline.problems),
        ("arms or seeds", shape(run), shape(baseline)),
    ):
        if ours != theirs:
            raise ConfigurationError(f"the baseline is of another {what} than this run; {RERECORD}")
    for arm, seeds in baseline.cells.items():
        for seed, cell in seeds.items():
            for name, bits in cell.verdicts.items():
                ours = run.cells[arm][seed].verdicts.get(name, "")
                if len(bits) != len(baseline.problems.get(name, ())):
                    raise ConfigurationError(f"the baseline is damaged at {arm}, seed {seed}, {name}; {RERECORD}")
                lacking = sum(b != "-" and (i >= len(ours) or ours[i] == "-") for i, b in enumerate(bits))
                if lacking:
                    raise IncompleteRun(f"{arm}, seed {seed}, {name}: {lacking} responses are missing")


def _metrics(summary: RunSummary, arm: str) -> list[str]:
    return sorted({metric for cell in summary.cells[arm].values() for metric in cell.training})


def _accuracy(run: RunSummary, baseline: RunSummary, arm: str, margin: float, level: float) -> Check:
    from bench.stats.variance import mean_and_spread

    ours, theirs = (_cells(summary, arm, summary) for summary in (run, baseline))
    paired = _cells(run, arm, baseline, paired=True)
    difference, spread = mean_and_spread(paired)
    return _judge(
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
    """Scores of ``run``, or their differences to ``baseline``; problems that either lacks are left out."""
    import numpy as np

    from bench.stats.cells import Cells

    rows = []
    for number, name in enumerate(baseline.problems):
        for seed_number, (seed, cell) in enumerate(sorted(baseline.cells[arm].items())):
            ours = run.cells[arm][seed].verdicts[name]
            for index, (a, b) in enumerate(zip(ours, cell.verdicts[name], strict=True)):
                if "-" not in (a, b):
                    score = float(a == "1") - (float(b == "1") if paired else 0.0)
                    rows.append((score, number, seed_number, (number, baseline.clusters[name][index]), (number, index)))
    score, stratum, seeds, clusters, items = zip(*rows, strict=True)
    codes = {cluster: code for code, cluster in enumerate(dict.fromkeys(clusters))}
    return Cells(
        score=np.array(score),
        stratum=np.array(stratum),
        seed=np.array(seeds),
        cluster=np.array([codes[cluster] for cluster in clusters]),
        items=len(set(items)),
        samples=len(rows),
    )


def _training(run: RunSummary, baseline: RunSummary, arm: str, metric: str, margins: Margins, level: float) -> Check:
    """Last steps paired by step and seed: both runs saw the same prompts there."""
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
    return _judge(name, float(there.mean()), float(here.mean()), estimate, margin, level, len(pairs), "steps")


def _judge(
    name: str,
    baseline: float,
    run: float,
    estimate: tuple[float, "Spread"],
    margin: float,
    level: float,
    n: int,
    unit: str,
) -> Check:
    """Place the interval of a difference between 0 and -margin."""
    from bench.stats.decisions import items_needed

    difference, spread = estimate
    low, high = difference - spread.reach(1 - NON_INFERIORITY), difference + spread.reach(1 - level)
    outcome: CheckOutcome = "pass" if low > -margin else "regression" if high < 0 else "inconclusive"
    remark = ""
    if outcome == "inconclusive":
        # What one problem or step would have to spread for this interval, clusters and guards included.
        sd = spread.reach(1 - NON_INFERIORITY) / 1.96 * math.sqrt(n)
        remark = f"needs n = {items_needed(margin, sd)} {unit}, has {n}" if math.isfinite(sd) else f"needs more {unit}"
    return Check(name, baseline, run, difference, low, high, margin, outcome, remark)


def read_baseline(path: Path) -> RunSummary:
    """The tracked baseline; ConfigurationError when it is missing, no JSON, or of another shape."""
    try:
        return RunSummary.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no baseline; {RERECORD}") from error
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(f"{path}: the baseline cannot be read; {RERECORD}") from error


def write_baseline(summary: RunSummary, path: Path) -> None:
    """Store a summary, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, summary.model_dump_json(by_alias=True, indent=1) + "\n")
