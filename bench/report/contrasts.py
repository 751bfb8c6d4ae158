"""The pre-registered contrasts: for each a paired difference, a corrected p-value, a verdict and a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, sqrt

import pandas as pd

from bench.records import Frame
from bench.report.model import INTERVAL, Contrast, Spec, Statement, Table, TableColumn, Tone
from bench.report.numbers import NONE, interval, interval_cells, p_value, percent, points
from bench.report.sides import Comparison, arms_of, comparison
from bench.stats.corrections import ALPHA, CORRECTIONS, Correction
from bench.stats.decisions import ContrastVerdict, contrast_verdict
from bench.stats.estimates import Difference, paired_difference
from bench.stats.power import detectable_effect, seeds_needed

TONES: dict[ContrastVerdict, Tone] = {"better": "better", "worse": "worse", "not resolved": "unresolved"}


def contrast_columns(correction: Correction) -> tuple[TableColumn, ...]:
    """The columns of a table of contrasts."""
    return (
        TableColumn("id", "contrast"),
        TableColumn("test", "test"),
        TableColumn("against", "against"),
        TableColumn("scope", "on"),
        TableColumn("difference", "difference", "number"),
        *INTERVAL,
        TableColumn("p", "p", "number"),
        TableColumn(f"p_{correction.name}", correction.header, "number"),
        TableColumn("sd", "sd over runs", "number"),
        TableColumn("item_error", "error of problems", "number"),
        TableColumn("mde", "MDE", "number"),
        TableColumn("margin", "margin", "number"),
        TableColumn("seeds_needed", "seeds needed", "number"),
        TableColumn("verdict", "verdict"),
        TableColumn("n", "pairs", "number"),
        TableColumn("missing", "missing", "number"),
        TableColumn("runs", "runs", "number"),
        TableColumn("method", "method"),
    )


STUDENT_COLUMNS = (
    TableColumn("id", "contrast"),
    TableColumn("test", "test"),
    TableColumn("against", "against"),
    TableColumn("student", "student"),
    TableColumn("difference", "difference", "number"),
    *INTERVAL,
    TableColumn("n", "pairs", "number"),
    TableColumn("seeds", "seeds", "number"),
)


@dataclass(frozen=True, slots=True)
class ContrastResult:
    """A contrast with its result.

    difference: None where the arms have no responses in common.
    absent: the arms without a response.
    effect: the registered effect that the contrast should find; 0 if there is none.
    level: of the test in the strictest step of the correction.
    families, secondary: the difference on each benchmark and on each secondary measure; they are not corrected.
    students: the difference for each student, where there are several.
    """

    id: str
    comparison: Comparison
    margin: float
    difference: Difference | None
    adjusted_p: float = 1.0
    families: dict[str, Difference] = field(default_factory=dict)
    secondary: dict[str, Difference] = field(default_factory=dict)
    students: dict[str, Difference] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    effect: float = 0.0
    level: float = ALPHA

    @property
    def verdict(self) -> ContrastVerdict:
        if self.difference is None:
            return "not resolved"
        return contrast_verdict(self.difference.value, self.adjusted_p)

    @property
    def equivalent(self) -> bool:
        return self.difference is not None and self.margin > 0 and self.difference.within(self.margin)

    @property
    def mde(self) -> float:
        """The smallest true difference that the test finds at ``level`` with 80 % power."""
        if self.difference is None:
            return inf
        return min(detectable_effect(self.difference.spread, self.level), 2.0 if self.comparison.of_gains else 1.0)

    @property
    def underpowered(self) -> bool:
        """Whether the contrast is open because its runs and problems are too few for ``effect``."""
        return self.verdict == "not resolved" and not self.equivalent and 0 < self.effect < self.mde

    @property
    def seeds_needed(self) -> int | None:
        """Seeds per student at which ``effect`` would be found with 80 % power; None where seeds cannot do it."""
        d = self.difference
        if d is None or d.spread.seed_df == 0 or d.spread.item == inf:
            return None
        return seeds_needed(self.effect, d.spread, d.students, d.runs, self.level)


def difference_of(verdicts: Frame, arms: Sequence[str], spec: Spec) -> Difference | None:
    """The paired difference over the primary benchmarks, or None without responses in common.

    arms: test and against, and for a difference of gains also the arms that they are over.
    """
    test, against, *over = (verdicts[verdicts["arm"] == arm] for arm in arms)
    try:
        return paired_difference(
            test, against, spec.analysis.primary.aggregate, over=(over[0], over[1]) if over else None
        )
    except ValueError as error:
        if isinstance(error, pd.errors.MergeError):  # a response occurs twice
            raise
        return None


def contrast_results(spec: Spec, verdicts: Frame, secondary: Mapping[str, Frame]) -> list[ContrastResult]:
    """The results of all contrasts of a matrix file.

    verdicts: rows of the primary benchmarks only. secondary: the rows of each secondary measure.
    """
    families = {str(family): rows for family, rows in verdicts.groupby("family", sort=True, observed=True)}
    students = {str(student): rows for student, rows in verdicts.groupby("student", sort=True, observed=True)}
    present = set(verdicts["arm"])
    differences = [difference_of(verdicts, arms_of(c), spec) for c in spec.analysis.contrasts]
    p_values = [difference.p for difference in differences if difference is not None]
    correction = CORRECTIONS[spec.analysis.correction]
    adjusted = iter(correction.function(p_values))
    level = ALPHA * correction.strictest(max(len(p_values), 1))
    return [
        ContrastResult(
            id=contrast.id,
            comparison=comparison(contrast, spec.arms),
            margin=contrast.min_effect,
            difference=difference,
            adjusted_p=next(adjusted) if difference is not None else 1.0,
            families=_differences(contrast, families, spec),
            secondary=_differences(contrast, secondary, spec),
            students=_differences(contrast, students, spec) if len(students) > 1 else {},
            absent=tuple(arm for arm in dict.fromkeys(arms_of(contrast)) if arm not in present),
            effect=contrast.expected_effect or contrast.min_effect,
            level=level,
        )
        for contrast, difference in zip(spec.analysis.contrasts, differences, strict=True)
    ]


def _differences(contrast: Contrast, parts: Mapping[str, Frame], spec: Spec) -> dict[str, Difference]:
    differences = {name: difference_of(rows, arms_of(contrast), spec) for name, rows in parts.items()}
    return {name: difference for name, difference in differences.items() if difference is not None}


def verdict_sentence(result: ContrastResult, correction: Correction) -> Statement:
    """The verdict of a contrast as one sentence that needs no context."""
    tone = TONES[result.verdict]
    d = result.difference
    if d is None:
        lack = f"no responses of {', '.join(result.absent)}" if result.absent else "no responses in common"
        text = f"{result.comparison.pair}: {lack}, so nothing can be said"
        return Statement(result.id, text, "not resolved", tone)
    bounds = interval(d.low, d.high, signed=True)
    p = p_value(result.adjusted_p)
    equals = "" if p.startswith("<") else "= "
    text = f"{result.comparison.result(d.value)}, 95 % interval {bounds}, {correction.header} {equals}{p}"
    if result.verdict == "not resolved":
        text += f"; such a comparison finds effects of {points(result.mde, signed=False)} points or more "
        text += f"(80 % power at the level {result.level:.2g})"
    if result.underpowered and d.spread.seed_df > 0:
        needed, size = result.seeds_needed, points(result.effect, signed=False)
        text += (
            f"; {size} points would take about {needed} seeds per student"
            if needed
            else (f"; more seeds alone would not find {size} points")
        )
    if result.equivalent:
        text += f"; equivalent within {points(result.margin, signed=False)} points"
    if d.spread.seed_df == 0:
        seed = "one seed" if d.students == 1 else "one seed per student"
        text += f"; {seed}, so the interval covers other problems but not other training runs"
    return Statement(result.id, text, result.verdict, tone)


def contrast_table(results: Sequence[ContrastResult], correction: Correction, caption: str, pooled: str) -> Table:
    """For each contrast a row of the primary aggregate, then uncorrected rows per family and secondary measure."""
    rows = []
    for c in results:
        rows.append(_pooled_row(c, correction, pooled))
        uncorrected = {**c.families, **c.secondary}
        rows += [_row(c, correction, scope, d) for scope, d in uncorrected.items()]
    return Table("contrasts", caption, contrast_columns(correction), tuple(rows))


def pooled_table(results: Sequence[ContrastResult], correction: Correction, caption: str, scope: str) -> Table:
    """The rows of ``contrast_table`` that have a verdict, with fewer columns."""
    rows = tuple(_pooled_row(c, correction, scope) for c in results)
    hidden = ("scope", "item_error", "method")
    shown = tuple(column for column in contrast_columns(correction) if column.key not in hidden)
    return Table("contrasts_pooled", caption, shown, rows)


def student_table(results: Sequence[ContrastResult], caption: str) -> Table:
    """For each contrast a row per student, without a verdict; without rows where there is one student."""
    rows = [
        {
            "id": c.id,
            "test": c.comparison.test,
            "against": c.comparison.against,
            "student": student,
            "difference": points(d.value),
            **interval_cells(d.low, d.high, points),
            "n": str(d.n),
            "seeds": str(d.runs),
        }
        for c in results
        for student, d in c.students.items()
    ]
    return Table("contrasts_students", caption, STUDENT_COLUMNS, tuple(rows))


def _pooled_row(c: ContrastResult, correction: Correction, scope: str) -> dict[str, str]:
    row = _row(c, correction, scope, c.difference) | {"verdict": c.verdict}
    if c.difference is None:
        return row
    row |= {f"p_{correction.name}": p_value(c.adjusted_p), "mde": points(c.mde, signed=False)}
    if c.underpowered and c.seeds_needed:
        row["seeds_needed"] = str(c.seeds_needed)
    return row


def _row(c: ContrastResult, correction: Correction, scope: str, d: Difference | None) -> dict[str, str]:
    """A row without correction: its MDE is that of a 5 % test."""
    row = {column.key: NONE for column in contrast_columns(correction)}
    row |= {
        "id": c.id,
        "test": c.comparison.test,
        "against": c.comparison.against,
        "scope": scope,
        "verdict": "not corrected",
    }
    row["margin"] = percent(c.margin) if c.margin else NONE
    if d is None:
        return row
    return row | {
        "difference": points(d.value),
        **interval_cells(d.low, d.high, points),
        "p": p_value(d.p),
        "sd": points(d.run_sd, signed=False) if d.spread.seed_df else NONE,
        "item_error": points(sqrt(d.spread.item), signed=False),
        "mde": points(d.mde, signed=False),
        "n": str(d.n),
        "missing": str(d.missing),
        "runs": str(d.runs),
        "method": d.method,
    }
