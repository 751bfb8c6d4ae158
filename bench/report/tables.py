"""Leaderboard, accuracy per benchmark, and how training ended: verdict rows in, formatted text out."""

from dataclasses import dataclass
from typing import Any

from bench.errors import ConfigurationError
from bench.records import Frame
from bench.report.model import INTERVAL, Column, Results, Spec, Table
from bench.report.numbers import NONE, decimal, interval_cells, percent
from bench.stats.cells import Aggregate, to_cells
from bench.stats.estimates import Accuracy, accuracy

RATES = ("unparsed", "ambiguous", "truncated", "refused", "error")
LEADERBOARD = (
    Column("arm", "arm"),
    Column("rank", "rank", "number"),
    Column("accuracy", "accuracy, %", "number"),
    *INTERVAL,
    Column("n", "n", "number"),
    Column("expected", "expected", "number"),
    *(Column(rate, f"{rate}, %", "number") for rate in RATES),
    Column("tokens", "tokens", "number"),
    Column("seeds", "seeds", "number"),
    Column("train_minutes", "CPU-min a seed", "number"),
)
FAMILIES = (
    Column("arm", "arm"),
    Column("family", "benchmark"),
    Column("accuracy", "accuracy, %", "number"),
    *INTERVAL,
    Column("n", "n", "number"),
    Column("expected", "expected", "number"),
    Column("items", "problems", "number"),
    Column("seeds", "seeds", "number"),
)
TRAINING_METRICS = {
    "reward_mean": ("final reward", 3),
    "kl": ("final teacher KL, nats a token", 3),
    "entropy": ("final entropy, nats", 3),
    "completion_tokens": ("final length, tokens", 1),
    "truncated_share": ("final truncated share", 3),
}
LAST_STEPS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """Accuracies of all arms: ``total`` by arm (primary aggregate), ``family`` by (arm, family).

    ``expected`` counts the responses a complete arm has, by family and, under "", in all.
    """

    total: dict[str, Accuracy]
    family: dict[tuple[str, str], Accuracy]
    expected: dict[str, int]
    by_seed: dict[str, list[float]]

    @property
    def ranked(self) -> list[str]:
        """Arms with a result, best first; ties by name."""
        return sorted(self.total, key=lambda arm: (-self.total[arm].value, arm))

    @property
    def families(self) -> list[str]:
        return [family for family in self.expected if family]


def primary_rows(spec: Spec, results: Results) -> Frame:
    """Verdicts of the primary benchmarks with ``family``: a synthetic data set goes by its own name.

    Raises:
        ConfigurationError: there are none.
    """
    over = list(spec.analysis.primary.over)
    verdicts = results.verdicts
    if "benchmark" not in verdicts or not verdicts["benchmark"].isin(over).any():
        raise ConfigurationError(f"{spec.name}: no responses to {', '.join(over)}; run the matrix first")
    rows = verdicts[verdicts["benchmark"].isin(over)]
    return rows.assign(family=rows["benchmark"].where(~rows["synthetic"].astype(bool), rows["dataset"]))


def planned_seeds(spec: Spec, results: Results) -> list[int]:
    """The seeds that the run was to have: of its stages, else of the matrix file."""
    planned = results.stages.get("seed", ())
    return sorted({int(seed) for seed in planned} or set(spec.seeds))


def measure(spec: Spec, results: Results, rows: Frame, seeds: int) -> Measured:
    """Accuracy of each arm, pooled and by family."""
    aggregate = spec.analysis.primary.aggregate
    arms: Any = rows.groupby("arm", sort=False, observed=True)
    cells: Any = rows.groupby(["arm", "family"], sort=False, observed=True)
    expected = {family: count * seeds for family, count in _expected(results, rows).items()}
    return Measured(
        total={str(arm): accuracy(group, aggregate) for arm, group in arms},
        family={(str(arm), str(family)): accuracy(group) for (arm, family), group in cells},
        expected={**expected, "": sum(expected.values())},
        by_seed={
            str(arm): [_mean(part, aggregate) for _, part in group.groupby("seed", sort=True)] for arm, group in arms
        },
    )


def _expected(results: Results, rows: Frame) -> dict[str, int]:
    """Responses that one complete evaluation has, by family: what its summary says, else all that any arm has."""
    seen: Any = rows[["family", "benchmark", "id", "sample"]].drop_duplicates().groupby(["family", "benchmark"]).size()
    stated = [summary.benchmarks for summary in results.summaries.values()]
    return {
        str(family): max([int(count), *(parts[benchmark].expected for parts in stated if benchmark in parts)])
        for (family, benchmark), count in seen.items()
    }


def _mean(rows: Frame, aggregate: Aggregate) -> float:
    cells = to_cells(rows.assign(score=rows["correct"].astype(float)))
    return float(cells.weights(aggregate) @ cells.score)


def leaderboard(spec: Spec, results: Results, rows: Frame, measured: Measured, caption: str) -> Table:
    """Best arm first; arms without any response come last and say so."""
    minutes = training_minutes(results)
    table = []
    for rank, arm in enumerate(measured.ranked, 1):
        found, own = measured.total[arm], rows[rows["arm"] == arm]
        table.append(
            {
                "arm": arm,
                "rank": str(rank),
                **accuracy_cells(found),
                "expected": str(measured.expected[""]),
                **{rate: percent(float((own["state"] == rate).mean())) for rate in RATES},
                "tokens": decimal(float(own["tokens"].mean()), 1),
                "seeds": str(found.seeds),
                "train_minutes": decimal(minutes[arm], 1) if arm in minutes else NONE,
            }
        )
    blank = {column.key: NONE for column in LEADERBOARD}
    absent = [arm.name for arm in spec.arms if arm.name not in measured.total]
    table += [blank | {"arm": arm, "n": "0", "expected": str(measured.expected[""])} for arm in absent]
    return Table("leaderboard", caption, LEADERBOARD, tuple(table))


def accuracy_cells(accuracy: Accuracy) -> dict[str, str]:
    """The cells of an accuracy: its value, its interval and the number of responses."""
    return {"accuracy": percent(accuracy.value), **interval_cells(accuracy.low, accuracy.high), "n": str(accuracy.n)}


def families(measured: Measured, caption: str) -> Table:
    """One row for each arm and benchmark, arms in the leaderboard's order."""
    table = []
    for arm in measured.ranked:
        for family in measured.families:
            found = measured.family.get((arm, family))
            row = {"arm": arm, "family": family, "expected": str(measured.expected[family])}
            if found is None:
                table.append({column.key: NONE for column in FAMILIES} | row | {"n": "0"})
                continue
            table.append(row | accuracy_cells(found) | {"items": str(found.items), "seeds": str(found.seeds)})
    return Table("families", caption, FAMILIES, tuple(table))


def training_minutes(results: Results) -> dict[str, float]:
    """Mean CPU minutes of SFT and RL a seed, by arm; a stage that arms share counts for each of them."""
    stages = results.stages
    if stages.empty:
        return {}
    trained = stages[stages["kind"].isin(["sft", "rl"])]
    totals: Any = trained.groupby(["arm", "seed"])["cpu_seconds"].sum().groupby("arm").mean() / 60
    return {str(arm): float(value) for arm, value in totals.items()}


def rl_curves(results: Results) -> Frame:
    """Curves of the RL stages; ``kl`` is the exact KL where it was computed, else the sampled one."""
    curves = results.curves
    if curves.empty:
        return curves
    rl = curves[curves["stage"].astype(str).str.startswith("rl")]
    exact = set(rl.loc[rl["metric"] == "kl_exact", "arm"])
    sampled = (rl["metric"] == "kl_sampled") & ~rl["arm"].isin(exact)
    renamed = rl["metric"].mask((rl["metric"] == "kl_exact") | sampled, "kl")
    return rl.assign(metric=renamed).dropna(subset=["value"])


def training(results: Results, order: list[str], caption: str) -> Table:
    """Mean of each metric over the last steps, with the range over seeds."""
    curves = last_steps(rl_curves(results))
    columns = (Column("arm", "arm"), *(Column(k, label, "number") for k, (label, _) in TRAINING_METRICS.items()))
    table = []
    for arm in order if not curves.empty else ():
        own = curves[curves["arm"] == arm]
        if own.empty:
            continue
        row = {"arm": arm}
        for metric, (_, places) in TRAINING_METRICS.items():
            ends = [float(v) for v in own[own["metric"] == metric].groupby("seed")["value"].mean()]
            row[metric] = NONE if not ends else decimal(sum(ends) / len(ends), places)
            if len(ends) > 1:
                row[metric] += f" [{decimal(min(ends), places)}, {decimal(max(ends), places)}]"
        table.append(row)
    return Table("training", caption, columns, tuple(table))


def last_steps(curves: Frame) -> Frame:
    """The rows of the last ``LAST_STEPS`` steps of each arm and seed: a metric that is measured rarely has fewer."""
    last = curves.groupby(["arm", "seed"])["step"].transform("max")
    return curves[curves["step"] > last - LAST_STEPS]
