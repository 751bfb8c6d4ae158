"""Measures next to the primary accuracy: perception, and accuracy over sampled responses.

They have intervals, but they decide nothing. Their contrasts are not corrected and have no verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.benchmarks.registry import pooled
from bench.records import Frame
from bench.report.model import INTERVAL, Results, Spec, Table, TableColumn
from bench.report.numbers import NONE, interval, percent
from bench.report.tables import ArmAccuracies, accuracy_cells, arm_accuracies, with_family
from bench.stats.samples import passed

COLUMNS = (
    TableColumn("arm", "arm"),
    TableColumn("measure", "measure"),
    TableColumn("family", "on"),
    TableColumn("accuracy", "value, %", "number"),
    *INTERVAL,
    TableColumn("n", "n", "number"),
    TableColumn("expected", "expected", "number"),
    TableColumn("runs", "runs", "number"),
)
PERCEPTION = "perception"
METHOD = (
    "{names} stand next to the primary accuracy. They are not part of the pooled number, and their contrasts are not "
    "corrected and decide nothing."
)
PERCEPTION_METHOD = (
    "Perception is the share of images whose text a model transcribes exactly, without reasoning. The paper measures "
    "perception on MMStar, which is another task."
)


@dataclass(frozen=True, slots=True)
class SecondaryMeasure:
    """A measure of every arm.

    key: names its column in the leaderboard. label: its name in headers and tables.
    rows: verdicts with a column ``family``; ``correct`` may be a share in [0, 1].
    """

    key: str
    label: str
    rows: Frame
    accuracies: ArmAccuracies


def secondary_measures(spec: Spec, results: Results, runs: int) -> list[SecondaryMeasure]:
    """The measures of which there are responses. ``runs`` is the number of planned runs of an arm."""
    return [
        SecondaryMeasure(key, label, rows, arm_accuracies(spec, results, rows, runs))
        for key, label, rows in _rows(spec, results)
        if len(rows)
    ]


def _rows(spec: Spec, results: Results) -> Iterator[tuple[str, str, Frame]]:
    """Key, label and rows of each measure."""
    verdicts, over = results.verdicts, spec.analysis.primary.over
    asked = list(verdicts["benchmark"].unique())
    perception = set(asked) - set(pooled(asked)) - set(over)
    yield PERCEPTION, "perception", with_family(verdicts[verdicts["benchmark"].isin(perception)])
    sampling = spec.analysis.sampled
    if sampling is None or results.sampled.empty:
        return
    sampled = with_family(results.sampled[results.sampled["benchmark"].isin(over)])
    k, drawn = sampling.samples, f"T={sampling.temperature:g}"
    yield "sampled", f"accuracy, {k} {'sample' if k == 1 else 'samples'} at {drawn}", sampled
    if k > 1:
        yield "passed", f"pass@{k} at {drawn}", _passed(sampled, k)


def _passed(sampled: Frame, samples: int) -> Frame:
    """One row per arm and problem; ``correct`` is pass@k."""
    families = sampled.drop_duplicates("benchmark").set_index("benchmark")["family"]
    arms = sampled.groupby("arm", sort=False, observed=True)
    rows: Frame = pd.concat([passed(own, samples).assign(arm=arm, sample=0) for arm, own in arms], ignore_index=True)
    return rows.assign(family=rows["benchmark"].map(families))


def with_measures(leaderboard: Table, measures: Sequence[SecondaryMeasure]) -> Table:
    """The leaderboard with a column of each measure after those of the accuracy."""
    place = [column.key for column in leaderboard.columns].index("n") + 1
    added = (TableColumn(measure.key, f"{measure.label}, %", "number") for measure in measures)
    columns = (*leaderboard.columns[:place], *added, *leaderboard.columns[place:])
    rows = ({**row, **{measure.key: _cell(measure, row["arm"]) for measure in measures}} for row in leaderboard.rows)
    return replace(leaderboard, columns=columns, rows=tuple(rows))


def _cell(measure: SecondaryMeasure, arm: str) -> str:
    total = measure.accuracies.total.get(arm)
    return NONE if total is None else f"{percent(total.value)} {interval(total.low, total.high)}"


def methods(measures: Sequence[SecondaryMeasure]) -> tuple[str, ...]:
    """What the page says about the measures."""
    if not measures:
        return ()
    names = " and ".join(measure.label for measure in measures)
    text = METHOD.format(names=names[0].upper() + names[1:])
    return (f"{text} {PERCEPTION_METHOD}" if any(m.key == PERCEPTION for m in measures) else text,)


def secondary_table(
    measures: Sequence[SecondaryMeasure], order: Sequence[str], pooled_name: str, caption: str
) -> Table:
    """A row for each arm and measure, then one for each of its benchmarks if there are several.

    order: the arms, as in the leaderboard. pooled_name: what the mean over benchmarks is called.
    """
    rows: list[dict[str, str]] = []
    for measure in measures:
        results, blank = measure.accuracies, {column.key: NONE for column in COLUMNS} | {"n": "0"}
        for arm in order:
            several = len(results.families) > 1
            values = [(pooled_name, "", results.total.get(arm))] if several else []
            values += [(family, family, results.family.get((arm, family))) for family in results.families]
            for name, family, value in values:
                row = {"arm": arm, "measure": measure.label, "family": name, "expected": str(results.expected[family])}
                own = {} if value is None else accuracy_cells(value) | {"runs": str(value.runs)}
                rows.append(blank | row | own)
    return Table("secondary", caption, COLUMNS, tuple(rows))
