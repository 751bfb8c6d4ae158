"""The accuracy grid of the page: one row per arm and one column per benchmark, with the baselines below."""

from collections.abc import Iterator

from bench.records import Frame
from bench.report.model import Results, Table, TableColumn
from bench.report.numbers import NONE, interval, percent
from bench.stats.samples import sample_metrics

CHANCE, MAJORITY = "chance", "most frequent answer"


def benchmark_grid(families: Table, results: Results, rows: Frame, caption: str) -> Table:
    """The cells of ``families`` (a ``tables.family_table``) as a grid.

    With several samples per problem, an arm also has rows for pass@k and maj@k. The last rows are the baselines that
    need no model.
    """
    names = list(dict.fromkeys(row["family"] for row in families.rows))
    grid: dict[str, dict[str, str]] = {}
    for row in families.rows:
        cell = NONE if row["accuracy"] == NONE else f"{row['accuracy']} [{row['low']}, {row['high']}]"
        grid.setdefault(row["arm"], {})[row["family"]] = cell
    metrics = dict(_sample_metrics(rows))
    table = []
    for arm, cells in grid.items():
        table.append({"arm": arm, **cells})
        table += [{"arm": f"{arm}, {name}", **more} for name, more in metrics.get(arm, {}).items()]
    for name, cells in baseline_cells(results).items():
        table.append({"arm": name, **{family: cells.get(family, NONE) for family in names}})
    columns = (TableColumn("arm", "arm"), *(TableColumn(name, name, "number") for name in names))
    return Table("families_wide", caption, columns, tuple(table))


def baseline_cells(results: Results) -> dict[str, dict[str, str]]:
    """Accuracy of chance and of the most frequent answer, in per cent, by baseline and family."""
    cells: dict[str, dict[str, str]] = {}
    for summary in results.summaries.values():
        for benchmark, part in summary.benchmarks.items():
            family = part.dataset if part.synthetic else benchmark
            for name, value in ((CHANCE, part.baselines.chance), (MAJORITY, part.baselines.majority)):
                cells.setdefault(name, {})[family] = percent(value)
    return cells


def _sample_metrics(rows: Frame) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """For each arm its cells of pass@k and maj@k by metric and family; nothing with one sample per problem."""
    samples = int(rows["sample"].max()) + 1
    if samples == 1:
        return
    for arm, own in rows.groupby("arm", sort=False, observed=True):
        cells: dict[str, dict[str, str]] = {}
        for family, part in own.groupby("family", sort=False, observed=True):
            metrics = sample_metrics(part, samples)
            for name in (f"pass@{samples}", f"maj@{samples}"):
                if name in metrics:
                    metric = metrics[name]
                    cell = f"{percent(metric.value)} {interval(metric.low, metric.high)}"
                    cells.setdefault(name, {})[str(family)] = cell
        yield str(arm), cells
