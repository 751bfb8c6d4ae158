"""The same arms on the problems that an audit of the training data found clean, beside all of them."""

from pathlib import Path

from bench.benchmarks.audit import read_audit
from bench.errors import ConfigurationError
from bench.records import Frame
from bench.report.model import INTERVAL, Column, Spec, Table
from bench.report.numbers import NONE, percent
from bench.report.tables import Measured, accuracy_cells
from bench.stats.estimates import accuracy

COLUMNS = (
    Column("arm", "arm"),
    Column("family", "benchmark"),
    Column("accuracy", "clean problems, %", "number"),
    *INTERVAL,
    Column("n", "n", "number"),
    Column("items", "clean", "number"),
    Column("all", "all problems, %", "number"),
    Column("all_n", "n of all", "number"),
    Column("all_items", "problems", "number"),
)


def table(spec: Spec, rows: Frame, measured: Measured, caption: str) -> Table:
    """A row for each arm and audited benchmark; without audits it is empty.

    rows: verdicts with ``family``. Raises ConfigurationError for a file that is no audit, and for one that does not
    know a problem that was asked.
    """
    found = []
    for file in spec.analysis.clean_of:
        asked, clean = _split(Path(file), rows)
        found += [_row(arm, family, clean, measured) for arm in measured.ranked for family in asked["family"].unique()]
    return Table("clean", caption, COLUMNS, tuple(found))


def _split(file: Path, rows: Frame) -> tuple[Frame, Frame]:
    """(verdicts on the audited benchmark, those of them on clean problems)."""
    audit = read_audit(file)
    asked = rows[rows["benchmark"] == audit.benchmark]
    unknown = sorted(set(asked["id"]) - audit.clean - audit.hit)
    if unknown:
        raise ConfigurationError(
            f"{file}: {len(unknown)} problems that were asked are not in this audit of {audit.benchmark} "
            f"(first {unknown[0]!r}); audit the records that are evaluated"
        )
    return asked, asked[asked["id"].isin(audit.clean)]


def _row(arm: str, family: str, clean: Frame, measured: Measured) -> dict[str, str]:
    row = {column.key: NONE for column in COLUMNS} | {"arm": arm, "family": family, "n": "0", "items": "0"}
    whole, own = measured.family.get((arm, family)), clean[(clean["arm"] == arm) & (clean["family"] == family)]
    if whole is not None:
        row |= {"all": percent(whole.value), "all_n": str(whole.n), "all_items": str(whole.items)}
    if len(own):
        part = accuracy(own)
        row |= accuracy_cells(part) | {"items": str(part.items)}
    return row
