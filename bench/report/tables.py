"""The tables of a report from rows of verdicts: leaderboard, accuracy per benchmark, and how training ended."""

from dataclasses import dataclass

from bench.errors import ConfigurationError
from bench.records import Frame
from bench.report.model import INTERVAL, Results, Spec, Table, TableColumn
from bench.report.numbers import NONE, decimal, interval_cells, percent
from bench.stats.cells import RUN_KEY, Aggregate, to_cells
from bench.stats.estimates import Accuracy, accuracy

RATES = ("unparsed", "ambiguous", "truncated", "refused", "error")
LEADERBOARD = (
    TableColumn("arm", "arm"),
    TableColumn("rank", "rank", "number"),
    TableColumn("accuracy", "accuracy, %", "number"),
    *INTERVAL,
    TableColumn("n", "n", "number"),
    TableColumn("expected", "expected", "number"),
    *(TableColumn(rate, f"{rate}, %", "number") for rate in RATES),
    TableColumn("tokens", "tokens", "number"),
    TableColumn("runs", "runs", "number"),
    TableColumn("train_minutes", "CPU-min per run", "number"),
)
FAMILIES = (
    TableColumn("arm", "arm"),
    TableColumn("family", "benchmark"),
    TableColumn("accuracy", "accuracy, %", "number"),
    *INTERVAL,
    TableColumn("n", "n", "number"),
    TableColumn("expected", "expected", "number"),
    TableColumn("items", "problems", "number"),
    TableColumn("runs", "runs", "number"),
)
TRAINING_METRICS: dict[str, tuple[str, int]] = {
    "reward_mean": ("final reward", 3),
    "kl": ("final teacher KL, nats per token", 3),
    "entropy": ("final entropy, nats", 3),
    "completion_tokens": ("final length, tokens", 1),
    "truncated_share": ("final truncated share", 3),
}
"""Column header and decimals of each metric."""
LAST_STEPS = 5


@dataclass(frozen=True, slots=True)
class ArmAccuracies:
    """The accuracies of all arms. A family is a benchmark, or a synthetic data set in its record format.

    total: the primary aggregate, by arm.
    family: by arm and family.
    expected: number of responses of a complete arm, by family; the key "" has the sum.
    by_run: the primary aggregate of each training run, by arm.
    """

    total: dict[str, Accuracy]
    family: dict[tuple[str, str], Accuracy]
    expected: dict[str, int]
    by_run: dict[str, list[float]]

    @property
    def ranked(self) -> list[str]:
        """The arms with a result, the best first; ties by name."""
        return sorted(self.total, key=lambda arm: (-self.total[arm].value, arm))

    @property
    def families(self) -> list[str]:
        return [family for family in self.expected if family]


def primary_rows(spec: Spec, results: Results) -> Frame:
    """The verdicts of the primary benchmarks with a column ``family``.

    Raises ConfigurationError when there is none.
    """
    over = list(spec.analysis.primary.over)
    verdicts = results.verdicts
    if "benchmark" not in verdicts or not verdicts["benchmark"].isin(over).any():
        raise ConfigurationError(f"{spec.name}: no responses to {', '.join(over)}; run the matrix first")
    return with_family(verdicts[verdicts["benchmark"].isin(over)])


def with_family(verdicts: Frame) -> Frame:
    """The rows with a column ``family``: the benchmark, or a synthetic data set's name."""
    family = verdicts["benchmark"].where(~verdicts["synthetic"].astype(bool), verdicts["dataset"])
    return verdicts.assign(family=family)


@dataclass(frozen=True, slots=True)
class PlannedRuns:
    """The training runs that are planned for each arm: every student with every seed.

    students: their names; a single empty name where models are evaluated as they are.
    """

    students: tuple[str, ...]
    seeds: int

    @property
    def count(self) -> int:
        return len(self.students) * self.seeds


def planned_runs(results: Results) -> PlannedRuns:
    """The planned runs of each arm, from the table of stages."""
    stages = results.stages
    return PlannedRuns(tuple(map(str, stages["student"].unique())), int(stages["seed"].nunique()))


def arm_accuracies(spec: Spec, results: Results, rows: Frame, runs: int) -> ArmAccuracies:
    """The accuracies of all arms. ``runs`` is the number of planned runs of an arm."""
    aggregate = spec.analysis.primary.aggregate
    arms = rows.groupby("arm", sort=False, observed=True)
    cells = rows.groupby(["arm", "family"], sort=False, observed=True)
    expected = {family: count * runs for family, count in _expected(results, rows).items()}
    return ArmAccuracies(
        total={str(arm): accuracy(group, aggregate) for arm, group in arms},
        family={(str(arm), str(family)): accuracy(group) for (arm, family), group in cells},
        expected={**expected, "": sum(expected.values())},
        by_run={
            str(arm): [_mean(part, aggregate) for _, part in group.groupby(RUN_KEY, sort=True)] for arm, group in arms
        },
    )


def _expected(results: Results, rows: Frame) -> dict[str, int]:
    """Number of responses of a complete evaluation, by family: the largest number of a summary or over all arms."""
    counts = rows[["family", "benchmark", "id", "sample"]].drop_duplicates().groupby(["family", "benchmark"]).size()
    summaries = [summary.benchmarks for summary in results.summaries.values()]
    return {
        str(family): max([int(count), *(parts[benchmark].expected for parts in summaries if benchmark in parts)])
        for (family, benchmark), count in counts.items()
    }


def _mean(rows: Frame, aggregate: Aggregate) -> float:
    cells = to_cells(rows.assign(score=rows["correct"].astype(float)))
    return float(cells.weights(aggregate) @ cells.score)


def leaderboard_table(spec: Spec, results: Results, rows: Frame, accuracies: ArmAccuracies, caption: str) -> Table:
    """The leaderboard, the best arm first. Arms without a response come last, with n = 0."""
    minutes = training_minutes(results)
    table = []
    for rank, arm in enumerate(accuracies.ranked, 1):
        total, own = accuracies.total[arm], rows[rows["arm"] == arm]
        table.append(
            {
                "arm": arm,
                "rank": str(rank),
                **accuracy_cells(total),
                "expected": str(accuracies.expected[""]),
                **{rate: percent(float((own["state"] == rate).mean())) for rate in RATES},
                "tokens": decimal(float(own["tokens"].mean()), 1),
                "runs": str(total.runs),
                "train_minutes": decimal(minutes[arm], 1) if arm in minutes else NONE,
            }
        )
    blank = {column.key: NONE for column in LEADERBOARD}
    absent = [arm.name for arm in spec.arms if arm.name not in accuracies.total]
    table += [blank | {"arm": arm, "n": "0", "expected": str(accuracies.expected[""])} for arm in absent]
    return Table("leaderboard", caption, LEADERBOARD, tuple(table))


def accuracy_cells(accuracy: Accuracy) -> dict[str, str]:
    """The cells of an accuracy: its value, its interval and the number of responses."""
    return {"accuracy": percent(accuracy.value), **interval_cells(accuracy.low, accuracy.high), "n": str(accuracy.n)}


def family_table(accuracies: ArmAccuracies, caption: str) -> Table:
    """One row per arm and benchmark, with the arms in the order of the leaderboard."""
    table = []
    for arm in accuracies.ranked:
        for family in accuracies.families:
            accuracy = accuracies.family.get((arm, family))
            row = {"arm": arm, "family": family, "expected": str(accuracies.expected[family])}
            if accuracy is None:
                table.append({column.key: NONE for column in FAMILIES} | row | {"n": "0"})
                continue
            table.append(row | accuracy_cells(accuracy) | {"items": str(accuracy.items), "runs": str(accuracy.runs)})
    return Table("families", caption, FAMILIES, tuple(table))


def training_minutes(results: Results) -> dict[str, float]:
    """Mean CPU minutes of SFT and RL per run, by arm. A shared stage counts for each of its arms."""
    stages = results.stages
    if stages.empty:
        return {}
    trained = stages[stages["kind"].isin(["sft", "rl"])]
    totals = trained.groupby(["arm", *RUN_KEY])["cpu_seconds"].sum().groupby("arm").mean() / 60
    return {str(arm): float(value) for arm, value in totals.items()}


def rl_curves(results: Results) -> Frame:
    """The curves of the RL stages. ``kl`` is the exact KL of an arm, or the sampled KL of an arm without it."""
    curves = results.curves
    if curves.empty:
        return curves
    rl = curves[curves["stage"].astype(str).str.startswith("rl")]
    exact = set(rl.loc[rl["metric"] == "kl_exact", "arm"])
    sampled = (rl["metric"] == "kl_sampled") & ~rl["arm"].isin(exact)
    renamed = rl["metric"].mask((rl["metric"] == "kl_exact") | sampled, "kl")
    return rl.assign(metric=renamed).dropna(subset=["value"])


def training_table(results: Results, order: list[str], caption: str) -> Table:
    """The mean of each training metric over the last steps, with its range over runs."""
    curves = last_steps(rl_curves(results))
    metrics = (TableColumn(key, header, "number") for key, (header, _) in TRAINING_METRICS.items())
    columns = (TableColumn("arm", "arm"), *metrics)
    table = []
    for arm in order if not curves.empty else ():
        own = curves[curves["arm"] == arm]
        if own.empty:
            continue
        row = {"arm": arm}
        for metric, (_, places) in TRAINING_METRICS.items():
            ends = [float(v) for v in own[own["metric"] == metric].groupby(RUN_KEY)["value"].mean()]
            row[metric] = NONE if not ends else decimal(sum(ends) / len(ends), places)
            if len(ends) > 1:
                row[metric] += f" [{decimal(min(ends), places)}, {decimal(max(ends), places)}]"
        table.append(row)
    return Table("training", caption, columns, tuple(table))


def last_steps(curves: Frame) -> Frame:
    """The rows of the last ``LAST_STEPS`` steps of each run. A metric that is measured rarely has fewer."""
    last = curves.groupby(["arm", *RUN_KEY])["step"].transform("max")
    return curves[curves["step"] > last - LAST_STEPS]
