"""The pre-registered contrasts: paired differences, Holm, one verdict and one sentence each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from bench.records import Frame
from bench.report.model import Column, Contrast, Spec, Statement, Table, Tone
from bench.report.numbers import NONE, interval, p_value, percent, points
from bench.stats.decisions import ContrastVerdict, holm, outcome
from bench.stats.estimates import Difference, compare

TONES: dict[ContrastVerdict, Tone] = {"better": "better", "worse": "worse", "not resolved": "unresolved"}
COLUMNS = (
    Column("id", "contrast"),
    Column("test", "test"),
    Column("against", "against"),
    Column("scope", "on"),
    Column("difference", "difference", "number"),
    Column("low", "low", "number"),
    Column("high", "high", "number"),
    Column("p", "p", "number"),
    Column("p_holm", "Holm p", "number"),
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
    corrected: bool = True

    @property
    def verdict(self) -> ContrastVerdict:
        if self.difference is None:
            return "not resolved"
        return outcome(self.difference.value, self.adjusted_p)

    @property
    def equivalent(self) -> bool:
        return self.difference is not None and self.margin > 0 and self.difference.within(self.margin)


def difference_of(verdicts: Frame, test: str, against: str, spec: Spec) -> Difference | None:
    """The primary paired difference, or None where either arm has nothing in common with the other."""
    try:
        return compare(
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
    adjusted = iter(holm(p_values) if spec.analysis.correction == "holm" else p_values)
    return [
        Compared(
            id=contrast.id,
            test=contrast.test,
            against=contrast.against,
            margin=contrast.min_effect,
            difference=difference,
            adjusted_p=next(adjusted) if difference is not None else 1.0,
            families=_families(contrast, verdicts, spec),
            corrected=spec.analysis.correction == "holm",
        )
        for contrast, difference in found
    ]


def _families(contrast: Contrast, verdicts: Frame, spec: Spec) -> dict[str, Difference]:
    each = {
        str(family): difference_of(rows, contrast.test, contrast.against, spec)
        for family, rows in verdicts.groupby("family", sort=True, observed=True)
    }
    return {family: difference for family, difference in each.items() if difference is not None}


def sentence(compared: Compared) -> Statement:
    """The verdict in one sentence, readable alone."""
    pair = f"{compared.test} over {compared.against}"
    tone = TONES[compared.verdict]
    d = compared.difference
    if d is None:
        text = f"{pair}: no responses in common, so nothing can be said"
        return Statement(compared.id, text, "not resolved", tone)
    bounds = interval(d.low, d.high, signed=True)
    name = "Holm p" if compared.corrected else "p"
    p = p_value(compared.adjusted_p)
    text = f"{pair}: {points(d.value)} points, 95 % interval {bounds}, {name} {'' if p[0] == '<' else '= '}{p}"
    if compared.verdict == "not resolved":
        text += f"; such a comparison finds effects of {points(d.mde, signed=False)} points or more (80 % power)"
    if compared.equivalent:
        text += f"; equivalent within {points(compared.margin, signed=False)} points"
    if d.seeds == 1:
        text += "; one seed, so the interval speaks of other items and not of other training runs"
    return Statement(compared.id, text, compared.verdict, tone)


def table(results: Sequence[Compared], caption: str, pooled: str) -> Table:
    """One row for the primary aggregate of each contrast, then one for each family (not corrected)."""
    rows = []
    for c in results:
        rows.append(_row(c, pooled, c.difference, p_value(c.adjusted_p), c.verdict))
        rows += [_row(c, family, d, NONE, "not corrected") for family, d in c.families.items()]
    return Table("contrasts", caption, COLUMNS, tuple(rows))


def pooled(results: Sequence[Compared], caption: str, scope: str) -> Table:
    """The rows that carry a verdict, in fewer columns, for reading."""
    rows = tuple(_row(c, scope, c.difference, p_value(c.adjusted_p), c.verdict) for c in results)
    hidden = {"scope", "method"}
    return Table("contrasts_pooled", caption, tuple(column for column in COLUMNS if column.key not in hidden), rows)


def _row(c: Compared, scope: str, d: Difference | None, adjusted: str, verdict: str) -> dict[str, str]:
    row = {column.key: NONE for column in COLUMNS}
    row |= {"id": c.id, "test": c.test, "against": c.against, "scope": scope, "verdict": verdict}
    row["margin"] = percent(c.margin) if c.margin else NONE
    if d is None:
        return row
    return row | {
        "difference": points(d.value),
        "low": points(d.low),
        "high": points(d.high),
        "p": p_value(d.p),
        "p_holm": adjusted,
        "mde": points(d.mde, signed=False),
        "n": str(d.n),
        "missing": str(d.missing_test + d.missing_against),
        "seeds": str(d.seeds),
        "method": d.method,
    }
