"""The pre-registered contrasts: paired differences, corrected p-values, one verdict and one sentence each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bench.records import Frame
from bench.report.model import INTERVAL, Column, Contrast, Spec, Statement, Table, Tone
from bench.report.numbers import NONE, interval, interval_cells, p_value, percent, points
from bench.stats.corrections import CORRECTIONS, Correction
from bench.stats.decisions import ContrastVerdict, contrast_verdict
from bench.stats.estimates import Difference, paired_difference

TONES: dict[ContrastVerdict, Tone] = {"better": "better", "worse": "worse", "not resolved": "unresolved"}


def columns(correction: Correction) -> tuple[Column, ...]:
    """The columns of a table of contrasts."""
    return (
        Column("id", "contrast"),
        Column("test", "test"),
        Column("against", "against"),
        Column("scope", "on"),
        Column("difference", "difference", "number"),
        *INTERVAL,
        Column("p", "p", "number"),
        Column(f"p_{correction.name}", correction.header, "number"),
        Column("mde", "MDE", "number"),
        Column("margin", "margin", "number"),
        Column("verdict", "verdict"),
        Column("n", "pairs", "number"),
        Column("missing", "missing", "number"),
        Column("seeds", "seeds", "number"),
        Column("method", "method"),
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """A contrast with its result; ``difference`` is None where an arm has no responses."""

    id: str
    test: str
    against: str
    margin: float
    difference: Difference | None
    adjusted_p: float = 1.0
    families: dict[str, Difference] = field(default_factory=dict)

    @property
    def verdict(self) -> ContrastVerdict:
        if self.difference is None:
            return "not resolved"
        return contrast_verdict(self.difference.value, self.adjusted_p)

    @property
    def equivalent(self) -> bool:
        return self.difference is not None and self.margin > 0 and self.difference.within(self.margin)


def difference_of(verdicts: Frame, test: str, against: str, spec: Spec) -> Difference | None:
    """The primary paired difference, or None where either arm has nothing in common with the other."""
    try:
        return paired_difference(
            verdicts[verdicts["arm"] == test],
            verdicts[verdicts["arm"] == against],
            spec.analysis.primary.aggregate,
        )
    except ValueError as error:
        if isinstance(error, pd.errors.MergeError):
            raise
        return None


def evaluate(spec: Spec, verdicts: Frame) -> list[Compared]:
    """All contrasts of the specification on ``verdicts`` (rows of the primary benchmarks only)."""
    found = [(c, difference_of(verdicts, c.test, c.against, spec)) for c in spec.analysis.contrasts]
    p_values = [d.p for _, d in found if d is not None]
    adjusted = iter(CORRECTIONS[spec.analysis.correction].function(p_values))
    return [
        Compared(
            id=contrast.id,
            test=contrast.test,
            against=contrast.against,
            margin=contrast.min_effect,
            difference=difference,
            adjusted_p=next(adjusted) if difference is not None else 1.0,
            families=_families(contrast, verdicts, spec),
        )
        for contrast, difference in found
    ]


def _families(contrast: Contrast, verdicts: Frame, spec: Spec) -> dict[str, Difference]:
    each = {
        str(family): difference_of(rows, contrast.test, contrast.against, spec)
        for family, rows in verdicts.groupby("family", sort=True, observed=True)
    }
    return {family: difference for family, difference in each.items() if difference is not None}


def sentence(compared: Compared, correction: Correction) -> Statement:
    """The verdict in one sentence, readable alone."""
    pair = f"{compared.test} over {compared.against}"
    tone = TONES[compared.verdict]
    d = compared.difference
    if d is None:
        text = f"{pair}: no responses in common, so nothing can be said"
        return Statement(compared.id, text, "not resolved", tone)
    bounds = interval(d.low, d.high, signed=True)
    p = p_value(compared.adjusted_p)
    equals = "" if p.startswith("<") else "= "
    text = f"{pair}: {points(d.value)} points, 95 % interval {bounds}, {correction.header} {equals}{p}"
    if compared.verdict == "not resolved":
        text += f"; such a comparison finds effects of {points(d.mde, signed=False)} points or more (80 % power)"
    if compared.equivalent:
        text += f"; equivalent within {points(compared.margin, signed=False)} points"
    if d.seeds == 1:
        text += "; one seed, so the interval speaks of other items and not of other training runs"
    return Statement(compared.id, text, compared.verdict, tone)


def table(results: Sequence[Compared], correction: Correction, caption: str, pooled: str) -> Table:
    """One row for the primary aggregate of each contrast, then one for each family (not corrected)."""
    rows = []
    for c in results:
        rows.append(_row(c, correction, pooled, c.difference, p_value(c.adjusted_p), c.verdict))
        rows += [_row(c, correction, family, d, NONE, "not corrected") for family, d in c.families.items()]
    return Table("contrasts", caption, columns(correction), tuple(rows))


def pooled(results: Sequence[Compared], correction: Correction, caption: str, scope: str) -> Table:
    """The rows that carry a verdict, in fewer columns, for reading."""
    rows = tuple(_row(c, correction, scope, c.difference, p_value(c.adjusted_p), c.verdict) for c in results)
    shown = tuple(column for column in columns(correction) if column.key not in ("scope", "method"))
    return Table("contrasts_pooled", caption, shown, rows)


def _row(
    c: Compared, correction: Correction, scope: str, d: Difference | None, adjusted: str, verdict: str
) -> dict[str, str]:
    row = {column.key: NONE for column in columns(correction)}
    row |= {"id": c.id, "test": c.test, "against": c.against, "scope": scope, "verdict": verdict}
    row["margin"] = percent(c.margin) if c.margin else NONE
    if d is None:
        return row
    return row | {
        "difference": points(d.value),
        **interval_cells(d.low, d.high, points),
        "p": p_value(d.p),
        f"p_{correction.name}": adjusted,
        "mde": points(d.mde, signed=False),
        "n": str(d.n),
        "missing": str(d.missing_test + d.missing_against),
        "seeds": str(d.seeds),
        "method": d.method,
    }
