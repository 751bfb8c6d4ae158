"""The content of a report, computed from a matrix and its results."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from bench.records import Frame
from bench.report import caveats, claims, clean, contrasts, doses, figures, secondary, tables
from bench.report.contrasts import ContrastResult
from bench.report.grid import benchmark_grid
from bench.report.model import SMALL_WORLD, Figure, ReportData, Results, Spec, Table, TableColumn
from bench.report.secondary import SecondaryMeasure
from bench.report.tables import ArmAccuracies, PlannedRuns
from bench.report.words import arm_in_words
from bench.stats.corrections import CORRECTIONS, UNCORRECTED
from bench.stats.estimates import Accuracy

METHODS = (
    "Accuracy is the share of responses that are right. A response that cannot be read, is cut at the limit or "
    "ends in an error is wrong. A response that was never made is missing. Intervals are Wilson's on the "
    "effective number of problems. In tables, n counts responses, expected is their number in a complete run, and "
    "tokens is the mean length of a response.",
    "The pooled number is the {aggregate} over {families}.",
    "Arms are compared in pairs on the same problems, students and seeds. The variance of a difference has two crossed "
    "parts, training runs and problems (clustered where they share a source): V = V_seed + V_item - V_cell "
    "(Cameron, Gelbach and Miller 2011). Each part has its own t quantile (Graybill and Wang 1980); a simulation "
    "in the test suite checks that intervals called 95 % cover 94 to 97 %.",
    "Base students are fixed blocks. Each student counts the same. V_seed comes from the spread over the seeds of one "
    "student, pooled over the students, with as many degrees of freedom as there are runs minus students. So a "
    "difference between students does not widen an interval, and a verdict holds for these students.",
    "Contrasts were written into the matrix file beforehand; {correction}. A verdict is better or worse when the "
    "corrected p is below 0.05, otherwise not resolved. Two arms are called equivalent when the 90 % interval is "
    "within the margin.",
    "MDE is the smallest true difference that such a comparison finds in 80 % of repetitions. It is given at the level "
    "that the correction demands in its strictest step, and at 5 % for single benchmarks. Seeds needed: with so many "
    "seeds per student, an open contrast would find the registered effect (the expected effect, otherwise the margin) "
    "in 80 % of repetitions, if the spread stays as measured.",
    "A paper's claim counts as reproduced or contradicted only by such a verdict. A claim of no gain is reproduced "
    "when the arm is worse, or when the 90 % interval excludes gains as large as the margin. The margin is 2.0 points "
    "where the matrix file names none.",
    "Curves are means over runs with the range from the lowest to the highest run; from 20 measured steps on, "
    "each is a running mean over 5. Final values are means over those of the last 5 steps that were measured.",
)


def analyse(spec: Spec, results: Results, paper: claims.Paper) -> ReportData:
    """Compute everything that a report shows.

    Raises ConfigurationError when the results have no response to a benchmark of the primary analysis.
    """
    rows = tables.primary_rows(spec, results)
    runs = tables.planned_runs(results)
    accuracies = tables.arm_accuracies(spec, results, rows, runs.count)
    measures = secondary.secondary_measures(spec, results, runs.count)
    compared = contrasts.contrast_results(spec, rows, {measure.label: measure.rows for measure in measures})
    synthetic = bool(rows["synthetic"].astype(bool).any())
    world = f" ({SMALL_WORLD})" if synthetic else ""
    correction = CORRECTIONS[spec.analysis.correction]
    return ReportData(
        name=spec.name,
        question=spec.question,
        synthetic=synthetic,
        lead=_lead(spec, accuracies, runs),
        statements=tuple(contrasts.verdict_sentence(c, correction) for c in compared),
        tables={
            table.id: table for table in _tables(spec, results, rows, accuracies, measures, compared, paper, world)
        },
        figures={figure.id: figure for figure in _figures(spec, results, accuracies, compared, world)},
        methods=(*_methods(spec, accuracies), *secondary.methods(measures)),
        caveats=caveats.list_caveats(spec, results, rows, accuracies, compared, runs),
        provenance=tuple(_flatten(results.provenance)),
        bars={arm: _bar(accuracy) for arm, accuracy in accuracies.total.items()},
    )


def _tables(
    spec: Spec,
    results: Results,
    rows: Frame,
    accuracies: ArmAccuracies,
    measures: list[SecondaryMeasure],
    compared: list[ContrastResult],
    paper: claims.Paper,
    world: str,
) -> list[Table]:
    correction = CORRECTIONS[spec.analysis.correction]
    pooled = f"{spec.analysis.primary.aggregate} mean"
    registered = "Pre-registered contrasts"
    families = tables.family_table(accuracies, f"Accuracy of each arm on each benchmark, %, with 95 % interval{world}.")
    arms = Table(
        "arms",
        f"The arms: one recipe each{world}.",
        (TableColumn("arm", "arm"), TableColumn("recipe", "recipe")),
        tuple({"arm": arm.name, "recipe": arm_in_words(arm, results.settings)} for arm in spec.arms),
    )
    leaderboard = tables.leaderboard_table(
        spec, results, rows, accuracies, f"Leaderboard: {pooled} accuracy, 95 % interval{world}."
    )
    return [
        arms,
        secondary.with_measures(leaderboard, measures),
        secondary.secondary_table(
            measures, accuracies.ranked, pooled, f"Measures next to the accuracy, 95 % interval{world}."
        ),
        contrasts.contrast_table(
            compared, correction, f"{registered}: paired differences in points, 95 % interval{world}.", pooled
        ),
        contrasts.pooled_table(compared, correction, f"{registered}, {pooled}: differences in points{world}.", pooled),
        contrasts.student_table(compared, f"{registered} for each student alone: differences in points{world}."),
        families,
        benchmark_grid(families, results, rows, families.caption),
        clean.clean_table(spec, rows, accuracies, f"Accuracy on the problems that an audit found clean{world}."),
        tables.training_table(results, accuracies.ranked, f"How RL ended: mean over runs [lowest, highest]{world}."),
        claims.claims_table(
            spec,
            {"accuracy": rows, **{measure.key: measure.rows for measure in measures}},
            compared,
            paper,
            f"The paper's claims next to our results{world}.",
        ),
    ]


def _figures(
    spec: Spec, results: Results, accuracies: ArmAccuracies, compared: list[ContrastResult], world: str
) -> list[Figure]:
    large = "pooled" if CORRECTIONS[spec.analysis.correction] is UNCORRECTED else "pooled and corrected"
    drawn: list[Figure | None] = [
        figures.accuracy_figure(accuracies, f"Accuracy of each arm, all benchmarks{world}."),
        figures.forest_figure(
            compared,
            f"Paired differences of the pre-registered contrasts{world}. Line: 95 % interval; large symbol: "
            f"{large}; small circle: one student; small square: one benchmark; shaded band: margin; upright ticks: "
            "minimal detectable effect.",
        ),
        figures.family_figure(accuracies, f"Accuracy by benchmark, 95 % interval{world}."),
        figures.curve_figure(tables.rl_curves(results), [arm.name for arm in spec.arms], f"Training curves{world}."),
    ]
    # Arms outside of every axis that train nothing, such as the base model, are reference lines.
    references = [
        arm.name
        for arm in spec.arms
        if not arm.levels and arm.name in accuracies.total and {"sft", "rl"} <= set(arm.skip)
    ]
    drawn += [
        figures.dose_figure(curve, accuracies, references, f"Accuracy against {curve.key}{world}.")
        for curve in doses.dose_curves(spec, results.settings)
    ]
    return [figure for figure in drawn if figure is not None]


def _lead(spec: Spec, accuracies: ArmAccuracies, runs: PlannedRuns) -> str:
    """The first paragraph of the page: what is compared, and on how many problems."""
    families = accuracies.families
    problems = sum(max(a.items for (_, name), a in accuracies.family.items() if name == family) for family in families)
    if len(spec.arms) == 1 and {"sft", "rl"} <= set(spec.arms[0].skip):
        return (
            f"This page says how the checkpoint {spec.arms[0].name}, evaluated as it is, answers {problems} problems "
            f"of {len(families)} benchmarks."
        )
    plural = "seed" if runs.seeds == 1 else "seeds"
    students = f" for each of {len(runs.students)} base students" if len(runs.students) > 1 else ""
    present = len({arm for arm, _ in accuracies.family})
    arms = str(len(spec.arms)) if present == len(spec.arms) else f"{present} of {len(spec.arms)}"
    return (
        f"This page compares {arms} ways (arms) of teaching a vision-language student to reason with the "
        f"help of a text-only teacher model. Stages are a cold start (supervised fine-tuning, SFT, on reasoning "
        f"traces), "
        f"GRPO (reinforcement learning from a reward for right answers), and on-policy distillation (OPD: the teacher "
        f"scores the student's own attempts). Training uses text alone; the test problems are images. Each trained "
        f"arm has {runs.seeds} {plural}{students}, and every arm answers {problems} problems of {len(families)} "
        "benchmarks. Arms are compared on the same problems, students and seeds."
    )


def _methods(spec: Spec, accuracies: ArmAccuracies) -> tuple[str, ...]:
    aggregate = {
        "macro": "macro mean (every benchmark counts the same)",
        "micro": "micro mean (every problem counts the same)",
    }[spec.analysis.primary.aggregate]
    correction = CORRECTIONS[spec.analysis.correction].sentence
    names = ", ".join(accuracies.families)
    return tuple(
        text.replace("{aggregate}", aggregate).replace("{correction}", correction).replace("{families}", names)
        for text in METHODS
    )


def _bar(accuracy: Accuracy) -> tuple[float, float, float]:
    return accuracy.low, accuracy.value, accuracy.high


def _flatten(value: object, path: str = "") -> list[tuple[str, str]]:
    """Nested provenance as pairs of dotted name and text, in the order of the provenance."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flatten(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        return [pair for i, item in enumerate(value) for pair in _flatten(item, f"{path}[{i}]")]
    if isinstance(value, float) and path.endswith(("_started", "_finished")):
        value = datetime.fromtimestamp(int(value), UTC).isoformat()
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return [(path, re.sub(r"\s+", " ", text))]
