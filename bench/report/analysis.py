"""From a matrix and its results to the content of a report."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bench.report import caveats, claims, clean, contrasts, doses, figures, tables
from bench.report.grid import grid
from bench.report.model import SMALL_WORLD, Column, Figure, ReportData, Results, Spec, Table
from bench.report.words import explain
from bench.stats.corrections import CORRECTIONS, UNCORRECTED
from bench.stats.estimates import Accuracy

METHODS = (
    "Accuracy is the share of responses that are right; a response that cannot be read, is cut at the limit or "
    "ends in an error is wrong, a response that was never made is missing. Intervals are Wilson's on the "
    "effective number of problems.",
    "The pooled number is the {aggregate} over {families}.",
    "Arms are compared in pairs on the same problems and seeds. The variance of a difference has two crossed "
    "parts, training seeds and problems (clustered where they share a source): V = V_seed + V_item - V_cell "
    "(Cameron, Gelbach and Miller 2011). Each part has its own t quantile (Graybill and Wang 1980); a simulation "
    "in the test suite checks that intervals called 95 % cover 94 to 97 %.",
    "Contrasts were written into the matrix file beforehand; {correction}. A verdict is better or worse when the "
    "corrected p is below 0.05, else not resolved. Two arms are called equivalent when the 90 % interval lies within "
    "the margin. MDE is the smallest true difference that such a comparison finds in 80 % of repetitions.",
    "A paper's claim counts as reproduced or contradicted only by such a verdict. A claim of no gain is reproduced "
    "when the arm is worse, or when the 90 % interval excludes gains as large as the margin. Margin where the matrix "
    "file names none: 2.0 points.",
    "Curves are means over seeds with the range from the lowest to the highest seed; from 20 measured steps on, "
    "each is a running mean over 5. Final values are means over the last 5 steps, those measured.",
)


def analyse(spec: Spec, results: Results, paper: Mapping[str, Any]) -> ReportData:
    """Compute everything a report shows.

    Raises:
        ConfigurationError: the results hold no response to any benchmark of the primary analysis.
    """
    rows = tables.primary_rows(spec, results)
    seeds = tables.planned_seeds(spec, results)
    measured = tables.measure(spec, results, rows, len(seeds))
    compared = contrasts.evaluate(spec, rows)
    synthetic = bool(rows["synthetic"].astype(bool).any())
    pooled = f"{spec.analysis.primary.aggregate} mean"
    correction = CORRECTIONS[spec.analysis.correction]
    return ReportData(
        name=spec.name,
        question=spec.question,
        synthetic=synthetic,
        lead=_lead(spec, measured, len(seeds)),
        statements=tuple(contrasts.sentence(c, correction) for c in compared),
        tables={t.id: t for t in _tables(spec, results, rows, measured, compared, paper, _suffix(synthetic), pooled)},
        figures={f.id: f for f in _figures(spec, results, measured, compared, _suffix(synthetic))},
        methods=_methods(spec, measured),
        caveats=caveats.write(spec, results, rows, measured, compared, len(seeds)),
        provenance=tuple(_flatten(results.provenance)),
        bars={arm: _bar(found) for arm, found in measured.total.items()},
    )


def _suffix(synthetic: bool) -> str:
    return f" ({SMALL_WORLD})" if synthetic else ""


def _tables(
    spec: Spec,
    results: Results,
    rows: Any,
    measured: tables.Measured,
    compared: list[contrasts.Compared],
    paper: Mapping[str, Any],
    world: str,
    pooled: str,
) -> list[Table]:
    order = measured.ranked
    correction = CORRECTIONS[spec.analysis.correction]
    long = tables.families(measured, f"Accuracy of each arm on each benchmark, %, with 95 % interval{world}.")
    arms = Table(
        "arms",
        f"The arms: one recipe each{world}.",
        (Column("arm", "arm"), Column("recipe", "recipe")),
        tuple({"arm": arm.name, "recipe": explain(arm, results.settings)} for arm in spec.arms),
    )
    return [
        arms,
        tables.leaderboard(spec, results, rows, measured, f"Leaderboard: {pooled} accuracy, 95 % interval{world}."),
        contrasts.table(
            compared,
            correction,
            f"Pre-registered contrasts: paired differences in points, 95 % interval{world}.",
            pooled,
        ),
        contrasts.pooled(
            compared, correction, f"Pre-registered contrasts, {pooled}: differences in points{world}.", pooled
        ),
        long,
        grid(long, results, rows, long.caption),
        clean.table(spec, rows, measured, f"Problems that stand in no training data that was audited{world}."),
        tables.training(results, order, f"How RL ended: mean over seeds [lowest, highest]{world}."),
        claims.evaluate(spec, rows, compared, paper, f"The paper's claims beside ours{world}."),
    ]


def _figures(
    spec: Spec, results: Results, measured: tables.Measured, compared: list[contrasts.Compared], world: str
) -> list[Figure]:
    large = "pooled" if CORRECTIONS[spec.analysis.correction] is UNCORRECTED else "pooled and corrected"
    drawn: list[Figure | None] = [
        figures.accuracies(measured, f"Accuracy of each arm, all benchmarks{world}."),
        figures.forest(
            compared,
            f"Paired differences of the pre-registered contrasts{world}. Line: 95 % interval; large symbol: "
            f"{large}; small square: one benchmark; shaded band: margin; upright ticks: minimal detectable effect.",
        ),
        figures.families(measured, f"Accuracy by benchmark, 95 % interval{world}."),
        figures.curves(tables.rl_curves(results), [arm.name for arm in spec.arms], f"Training curves{world}."),
    ]
    alone = [arm.name for arm in spec.arms if not arm.levels and arm.name in measured.total]
    references = [name for name in alone if {"sft", "rl"} <= set(_arm(spec, name).skip)]
    drawn += [
        figures.dose(found, measured, references, f"Accuracy against {found.key}{world}.")
        for found in doses.find(spec, results.settings)
    ]
    return [figure for figure in drawn if figure is not None]


def _arm(spec: Spec, name: str) -> Any:
    return next(arm for arm in spec.arms if arm.name == name)


def _lead(spec: Spec, measured: tables.Measured, seeds: int) -> str:
    problems = sum(max(f.items for (_, name), f in measured.family.items() if name == n) for n in measured.families)
    if len(spec.arms) == 1 and {"sft", "rl"} <= set(spec.arms[0].skip):
        return (
            f"This page says how the checkpoint {spec.arms[0].name}, evaluated as it is, answers {problems} problems "
            f"of {len(measured.families)} benchmarks."
        )
    plural = "seed" if seeds == 1 else "seeds"
    present = len({arm for arm, _ in measured.family})
    arms = str(len(spec.arms)) if present == len(spec.arms) else f"{present} of {len(spec.arms)}"
    return (
        f"This page compares {arms} ways (arms) of teaching a vision-language student to reason with the "
        f"help of a text-only teacher model. Stages are a cold start (supervised fine-tuning, SFT, on reasoning "
        f"traces), "
        f"GRPO (reinforcement learning from a reward for right answers), and on-policy distillation (OPD: the teacher "
        f"scores the student's own attempts). Training uses text alone; the test problems are images. Each arm was "
        f"trained with {seeds} {plural} and answers {problems} problems of {len(measured.families)} benchmarks; arms "
        f"are compared on the same problems and seeds."
    )


def _methods(spec: Spec, measured: tables.Measured) -> tuple[str, ...]:
    aggregate = {
        "macro": "macro mean (every benchmark counts the same)",
        "micro": "micro mean (every problem counts the same)",
    }[spec.analysis.primary.aggregate]
    correction = CORRECTIONS[spec.analysis.correction].sentence
    names = ", ".join(measured.families)
    return tuple(
        text.replace("{aggregate}", aggregate).replace("{correction}", correction).replace("{families}", names)
        for text in METHODS
    )


def _bar(found: Accuracy) -> tuple[float, float, float]:
    return found.low, found.value, found.high


def _flatten(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Nested provenance as (dotted name, text), in the order given."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flatten(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        return [pair for i, item in enumerate(value) for pair in _flatten(item, f"{path}[{i}]")]
    if isinstance(value, float) and path.endswith(("_started", "_finished")):
        value = datetime.fromtimestamp(int(value), UTC).isoformat()
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return [(path, re.sub(r"\s+", " ", text))]
