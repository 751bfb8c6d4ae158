"""The caveats of a report: what a reader must know before trusting it, written from the results."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.records import Frame
from bench.report.contrasts import ContrastResult
from bench.report.model import Results, Spec
from bench.report.numbers import percent, points
from bench.report.tables import ArmAccuracies, PlannedRuns
from bench.stats.corrections import CORRECTIONS, UNCORRECTED

HIGH_RATE = 0.05
FEW_CLUSTERS = 10


def list_caveats(
    spec: Spec,
    results: Results,
    rows: Frame,
    accuracies: ArmAccuracies,
    contrasts: Sequence[ContrastResult],
    runs: PlannedRuns,
) -> tuple[str, ...]:
    """The caveats of a report, the most important first."""
    return (
        *_world(rows),
        *_changes(results),
        *_coverage(spec, results, rows, accuracies, runs),
        *_students(runs, contrasts),
        *_repeated(results),
        *_states(rows),
        _exploratory(spec),
        *_baselines(results),
    )


def _world(rows: Frame) -> Iterator[str]:
    synthetic = rows[rows["synthetic"].astype(bool)]
    if synthetic.empty:
        return
    pairs = synthetic[["dataset", "benchmark"]].drop_duplicates().sort_values(["benchmark", "dataset"])
    names = ", ".join(f"{d} (in the record format of {b})" for d, b in pairs.itertuples(index=False))
    yield (
        f"Small world: {names} are generated problems for models of about one million parameters. They test whether "
        "the training method behaves as claimed; they say nothing about the accuracy of real models on the real "
        "benchmarks whose record format they borrow."
    )
    if len(synthetic) < len(rows):
        yield "Real and synthetic data sets share a table here; a mean over both has no meaning."


def _exploratory(spec: Spec) -> str:
    if CORRECTIONS[spec.analysis.correction] is UNCORRECTED:
        return "Figures and tables by benchmark are exploratory. No p-value on this page is corrected."
    return (
        "Figures and tables by benchmark are exploratory: only the pooled pre-registered contrasts are corrected "
        "for their number."
    )


def _changes(results: Results) -> Iterator[str]:
    changed = results.provenance.get("changes", {})
    texts = [f"{name.replace('_', ' ')} {', '.join(map(str, values))}" for name, values in changed.items()]
    if texts:
        yield f"The command line changed the experiment of the matrix file: {'; '.join(texts)}."


def _coverage(spec: Spec, results: Results, rows: Frame, accuracies: ArmAccuracies, runs: PlannedRuns) -> Iterator[str]:
    if runs.seeds == 1 and any("rl" not in arm.skip or "sft" not in arm.skip for arm in spec.arms):
        yield "One training seed per student: intervals cover other problems, not other training runs."
    for arm in spec.arms:
        have = accuracies.total[arm.name].n if arm.name in accuracies.total else 0
        missing = accuracies.expected[""] - have
        if missing:
            yield (
                f"{arm.name}: {missing} of {accuracies.expected['']} responses are missing. They count neither as "
                "right nor as wrong, and paired differences use the responses that both arms have."
            )
    clusters = rows.groupby("family", observed=True)["cluster"].nunique()
    for family, count in clusters[clusters < FEW_CLUSTERS].items():
        yield (
            f"{family}: its problems fall into only {count} groups of a common source, so its intervals are wide and "
            "themselves uncertain."
        )
    absent = [name for name in spec.analysis.primary.over if name not in set(rows["benchmark"])]
    if absent:
        yield f"The planned average includes benchmarks without results: {', '.join(absent)}."
    stages = results.stages
    if not stages.empty:
        failed = stages[stages["status"] != "done"]
        if len(failed):
            several = len(runs.students) > 1
            names = ", ".join(sorted({_stage_words(row, several) for row in failed.itertuples()}))
            yield f"Stages that did not finish: {names}."


def _stage_words(row: Any, several_students: bool) -> str:
    student = f" {row.student}" if several_students else ""
    return f"{row.arm}{student} seed {row.seed} {row.kind}: {row.status}"


def _students(runs: PlannedRuns, contrasts: Sequence[ContrastResult]) -> Iterator[str]:
    if not any(runs.students):
        return
    plural = "student" if len(runs.students) == 1 else "students"
    yield (
        f"Every statement is about {len(runs.students)} base {plural} ({', '.join(runs.students)}). Intervals cover "
        "other seeds and other problems, not other students."
    )
    for c in contrasts:
        if c.difference is not None and c.difference.students < len(runs.students):
            have = ", ".join(c.students) or "one student"
            yield f"{c.id}: only {have} of {len(runs.students)} base students has responses of all arms."
        if len(c.students) > 1 and max(d.low for d in c.students.values()) > min(d.high for d in c.students.values()):
            found = ", ".join(f"{name} {points(d.value)}" for name, d in c.students.items())
            yield f"{c.id}: the students disagree ({found} points; their 95 % intervals do not overlap)."


def _repeated(results: Results) -> Iterator[str]:
    stages = results.stages
    if stages.empty:
        return
    evaluations = stages[stages["kind"] == "eval"].groupby("arm", sort=False)["stage_id"]
    repeated = [str(arm) for arm, names in evaluations if names.duplicated().any()]
    if repeated:
        yield f"The same evaluation serves several seeds and is counted once for each: {', '.join(repeated)}."


def _baselines(results: Results) -> Iterator[str]:
    blind = sorted({arm for (arm, kind), config in results.settings.items() if kind == "eval" and config.get("blind")})
    if blind:
        yield f"Evaluated blind, with the images left out: {', '.join(blind)}."
    else:
        yield "No blind (no image) baseline was run."


def _states(rows: Frame) -> Iterator[str]:
    for state, description in (
        ("unparsed", "without a readable answer"),
        ("truncated", "cut at the token limit"),
        ("error", "ended by an error"),
    ):
        share = (rows["state"] == state).groupby(rows["arm"]).mean()
        high = share[share > HIGH_RATE].sort_values(ascending=False)
        if len(high):
            names = ", ".join(f"{arm} {percent(float(value))} %" for arm, value in high.items())
            yield f"Responses {description}, where more than {percent(HIGH_RATE)} %: {names}. They are scored as wrong."
