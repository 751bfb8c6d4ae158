"""The paper's claims next to our results. A rule gives each claim its status from two named arms."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from bench.records import Frame
from bench.report.contrasts import ContrastResult, difference_of
from bench.report.model import Expect, Spec, Table, TableColumn
from bench.report.numbers import NONE, decimal, interval, p_value, points
from bench.report.sides import Comparison, side_in_words
from bench.stats.corrections import CORRECTIONS
from bench.stats.decisions import ContrastVerdict
from bench.stats.estimates import Difference

PAPER = Path(__file__).parent / "paper.json"
DEFAULT_MARGIN = 0.02
Measure = Literal["accuracy", "perception"]
_Comparison = tuple[str, str, Measure]
"""The arms ``test`` and ``against``, and what is compared."""
ClaimStatus = Literal["reproduced", "not resolved", "contradicted", "not tested"]
COLUMNS = (
    TableColumn("claim", "claim"),
    TableColumn("status", "outcome"),
    TableColumn("paper", "the paper's figures, %"),
    TableColumn("ours", "our difference, points", "number"),
    TableColumn("p", "adjusted p", "number"),
    TableColumn("registered", "registered as"),
    TableColumn("arms", "our arms"),
)


Paper = Mapping[str, Any]
"""The content of ``paper.json``: where the paper appeared, its tables and its claims."""


class PaperClaim(TypedDict):
    """A claim of the paper: the arm ``test`` is ``expect`` than the arm ``against``. ``table`` has its figures.

    measure: what is compared; the primary accuracy if it is absent.
    """

    statement: str
    test: str
    against: str
    expect: Expect
    measure: NotRequired[Measure]
    table: NotRequired[str]
    remark: NotRequired[str]


def load_paper(path: Path = PAPER) -> Paper:
    """The paper's tables and claims. Raises ValueError for a file of another schema."""
    paper = json.loads(path.read_text(encoding="utf-8"))
    if paper.get("schema") != "vold-bench/paper@1":
        raise ValueError(f"{path}: expected schema vold-bench/paper@1, found {paper.get('schema')!r}")
    return paper


def claim_status(expect: Expect, verdict: ContrastVerdict, inner: tuple[float, float], margin: float) -> ClaimStatus:
    """The status of the claim that the test arm is ``expect`` than the other arm.

    A claim of no gain is reproduced when the arm is worse, or when the 90 % interval ``inner`` excludes gains of
    ``margin`` or more. A difference that is not resolved does not show that there is no difference.
    """
    if expect in ("better", "worse"):
        opposite = "worse" if expect == "better" else "better"
        return "reproduced" if verdict == expect else "contradicted" if verdict == opposite else "not resolved"
    forbidden, allowed = ("better", "worse") if expect == "not_better" else ("worse", "better")
    if verdict == forbidden:
        return "contradicted"
    bound = inner[1] if expect == "not_better" else -inner[0]
    return "reproduced" if verdict == allowed or bound < margin else "not resolved"


def claims_table(
    spec: Spec, rows: Mapping[str, Frame], contrasts: Sequence[ContrastResult], paper: Paper, caption: str
) -> Table:
    """A row for each claim of the paper about arms of this matrix, then for each claim of the matrix file alone.

    A claim whose two arms are a pre-registered contrast has the verdict of that contrast. The arms of the other claims
    are compared here. These comparisons are marked as exploratory and corrected for their own number.

    rows: the verdicts of each measure. A claim about another measure is not tested.
    """
    registered: dict[_Comparison, ContrastResult] = {
        (c.comparison.test, c.comparison.against, "accuracy"): c for c in contrasts
    }
    names = {arm.name for arm in spec.arms}
    stated = paper.get("claims", [])
    claims: list[PaperClaim] = [claim for claim in stated if {claim["test"], claim["against"]} <= names]
    if len(claims) < len(stated):
        caption += f" {len(stated) - len(claims)} further claims concern arms that this matrix does not have."
    compared = {_comparison(claim) for claim in claims}
    stated_here = [
        PaperClaim(
            statement=c.claim,
            test=side_in_words(c.test),
            against=side_in_words(c.against),
            expect=c.expect,
            remark=NONE,
        )
        for c in spec.analysis.contrasts
        if c.claim
    ]
    claims += [claim for claim in stated_here if _comparison(claim) not in compared]
    exploratory = _exploratory(claims, registered, spec, rows)
    return Table("claims", caption, COLUMNS, tuple(_row(claim, registered, exploratory, paper) for claim in claims))


def _comparison(claim: PaperClaim) -> _Comparison:
    return claim["test"], claim["against"], claim.get("measure", "accuracy")


def _exploratory(
    claims: Sequence[PaperClaim],
    registered: Mapping[_Comparison, ContrastResult],
    spec: Spec,
    rows: Mapping[str, Frame],
) -> dict[_Comparison, ContrastResult]:
    differences: dict[_Comparison, Difference] = {}
    for test, against, measure in map(_comparison, claims):
        if (test, against, measure) not in registered and measure in rows:
            difference = difference_of(rows[measure], (test, against), spec)
            if difference is not None:
                differences[test, against, measure] = difference
    adjusted = CORRECTIONS[spec.analysis.correction].function([d.p for d in differences.values()])
    return {
        (test, against, measure): ContrastResult("", Comparison(test, against), DEFAULT_MARGIN, difference, p)
        for ((test, against, measure), difference), p in zip(differences.items(), adjusted, strict=True)
    }


def _row(
    claim: PaperClaim,
    registered: Mapping[_Comparison, ContrastResult],
    exploratory: Mapping[_Comparison, ContrastResult],
    paper: Paper,
) -> dict[str, str]:
    comparison = _comparison(claim)
    row = {
        "claim": claim["statement"],
        "paper": paper_figures(claim, paper),
        "arms": Comparison(claim["test"], claim["against"]).pair,
        "ours": NONE,
        "p": NONE,
        "registered": NONE,
        "status": "not tested",
    }
    result = registered.get(comparison) or exploratory.get(comparison)
    if result is None:
        return row
    row["arms"] = result.comparison.pair
    if result.difference is None:
        return row
    d = result.difference
    margin = result.margin or DEFAULT_MARGIN
    return row | {
        "ours": f"{points(d.value)} {interval(d.low, d.high, signed=True)}",
        "p": p_value(result.adjusted_p),
        "registered": result.id or "exploratory",
        "status": claim_status(claim["expect"], result.verdict, d.inner, margin),
    }


def paper_figures(claim: PaperClaim, paper: Paper) -> str:
    """The paper's numbers for both arms of a claim, or the remark of a claim without a table."""
    table = paper.get("tables", {}).get(claim.get("table"))
    if table is None:
        return str(claim.get("remark", NONE))
    test, against = table["rows"][claim["test"]], table["rows"][claim["against"]]
    labels = paper.get("labels", {})
    figures = [
        f"{labels.get(name, name)} {decimal(test[name], 1)} against {decimal(against[name], 1)}"
        for name in test
        if name in against
    ]
    return f"{'; '.join(figures)} ({table['source']})"
