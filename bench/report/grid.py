"""The grid for reading: an arm a row, a benchmark a column, with what costs nothing and other measures beside it."""

from collections.abc import Iterator

from bench.records import Frame
from bench.report.model import Column, Results, Table
from bench.report.numbers import NONE, interval, percent
from bench.stats.samples import sample_metrics

CHANCE, MAJORITY = "chance", "most frequent answer"


def grid(long: Table, results: Results, rows: Frame, caption: str) -> Table:
    """The cells of ``long`` (``tables.families``) as a grid; where problems were answered several times, an arm also
    has rows for pass@k and maj@k; the last rows are the baselines that the records alone give."""
    names = list(dict.fromkeys(row["family"] for row in long.rows))
    cells: dict[str, dict[str, str]] = {}
    for row in long.rows:
        cell = NONE if row["accuracy"] == NONE else f"{row['accuracy']} [{row['low']}, {row['high']}]"
        cells.setdefault(row["arm"], {})[row["family"]] = cell
    measures = dict(_measures(rows))
    table = []
    for arm, found in cells.items():
        table.append({"arm": arm, **found})
        table += [{"arm": f"{arm}, {name}", **more} for name, more in measures.get(arm, {}).items()]
    table += [{"arm": name, **dict.fromkeys(names, NONE), **found} for name, found in baselines(results).items()]
    return Table(
        "families_wide", caption, (Column("arm", "arm"), *(Column(n, n, "number") for n in names)), tuple(table)
    )


def baselines(results: Results) -> dict[str, dict[str, str]]:
    """Chance and the most frequent answer by family, in per cent."""
    found: dict[str, dict[str, str]] = {}
    for summary in results.summaries.values():
        for benchmark, part in summary.benchmarks.items():
            family = part.dataset if part.synthetic else benchmark
            for name, value in ((CHANCE, part.baselines.chance), (MAJORITY, part.baselines.majority)):
                found.setdefault(name, {})[family] = percent(value)
    return found


def _measures(rows: Frame) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """Of each arm by measure and family; nothing where every problem was answered once."""
    samples = int(rows["sample"].max()) + 1
    if samples == 1:
        return
    for arm, own in rows.groupby("arm", sort=False, observed=True):
        by_measure: dict[str, dict[str, str]] = {}
        for family, part in own.groupby("family", sort=False, observed=True):
            found = sample_metrics(part, samples)
            for name in (f"pass@{samples}", f"maj@{samples}"):
                if name in found:
                    cell = f"{percent(found[name].value)} {interval(found[name].low, found[name].high)}"
                    by_measure.setdefault(name, {})[str(family)] = cell
        yield str(arm), by_measure
