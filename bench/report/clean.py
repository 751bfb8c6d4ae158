"""Accuracy on the problems that an audit found clean of training data, next to accuracy on all problems."""

from pathlib import Path

from bench.benchmarks.audit import read_audit
from bench.errors import ConfigurationError
from bench.records import Frame
from bench.report.model import INTERVAL, Spec, Table, TableColumn
from bench.report.numbers import NONE, percent
from bench.report.tables import ArmAccuracies, accuracy_cells
from bench.stats.estimates import accuracy

COLUMNS = (
    TableColumn("arm", "arm"),
    TableColumn("family", "benchmark"),
    TableColumn("accuracy", "clean problems, %", "number"),
    *INTERVAL,
    TableColumn("n", "n", "number"),
    TableColumn("items", "clean", "number"),
    TableColumn("all", "all problems, %", "number"),
    TableColumn("all_n", "n of all", "number"),
    TableColumn("all_items", "problems", "number"),
)


def clean_table(spec: Spec, rows: Frame, accuracies: ArmAccuracies, caption: str) -> Table:
    """A row for each arm and audited benchmark; without an audit the table is empty.

    rows: verdicts with the column ``family``.
    Raises ConfigurationError for a file that is not an audit, and for an audit that lacks a problem of ``rows``.
    """
    cells = []
    for name in spec.analysis.clean_of:
        audited, clean = _audited_rows(Path(name), rows)
        families = audited["family"].unique()
        cells += [_row(arm, family, clean, accuracies) for arm in accuracies.ranked for family in families]
    return Table("clean", caption, COLUMNS, tuple(cells))


def _audited_rows(path: Path, rows: Frame) -> tuple[Frame, Frame]:
    """The verdicts on the audited benchmark, and those of them on clean problems."""
    audit = read_audit(path)
    audited = rows[rows["benchmark"] == audit.benchmark]
    unknown = sorted(set(audited["id"]) - audit.clean - audit.hit)
    if unknown:
        raise ConfigurationError(
            f"{path}: {len(unknown)} evaluated problems are not in this audit of {audit.benchmark} "
            f"(first {unknown[0]!r}); audit the records that are evaluated"
        )
    return audited, audited[audited["id"].isin(audit.clean)]


def _row(arm: str, family: str, clean: Frame, accuracies: ArmAccuracies) -> dict[str, str]:
    row = {column.key: NONE for column in COLUMNS} | {"arm": arm, "family": family, "n": "0", "items": "0"}
    total = accuracies.family.get((arm, family))
    if total is not None:
        row |= {"all": percent(total.value), "all_n": str(total.n), "all_items": str(total.items)}
    own = clean[(clean["arm"] == arm) & (clean["family"] == family)]
    if len(own):
        on_clean = accuracy(own)
        row |= accuracy_cells(on_clean) | {"items": str(on_clean.items)}
    return row
