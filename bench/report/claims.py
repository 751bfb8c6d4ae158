"""The paper's claims beside ours: each judged by a rule from two named arms, never by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.records import Frame
from bench.report.contrasts import Compared, difference_of
from bench.report.model import Column, Expect, Spec, Table
from bench.report.numbers import NONE, decimal, interval, p_value, points
from bench.stats.corrections import CORRECTIONS
from bench.stats.decisions import ContrastVerdict

PAPER = Path(__file__).parent / "paper.json"
DEFAULT_MARGIN = 0.02
ClaimStatus = Literal["reproduced", "not resolved", "contradicted", "not tested"]
COLUMNS = (
    Column("claim", "claim"),
    Column("status", "outcome"),
    Column("paper", "the paper's figures, %"),
    Column("ours", "our difference, points", "number"),
    Column("p", "adjusted p", "number"),
    Column("registered", "registered as"),
    Column("arms", "our arms"),
)


def load_paper(path: Path = PAPER) -> dict[str, Any]:
    """The paper's tables and claims.

    Raises:
        ValueError: the file is of another schema.
    """
    paper = json.loads(path.read_text(encoding="utf-8"))
    if paper.get("schema") != "vold-bench/paper@1":
        raise ValueError(f"{path}: expected schema vold-bench/paper@1, found {paper.get('schema')!r}")
    return paper


def judge(expect: Expect, verdict: ContrastVerdict, inner: tuple[float, float], margin: float) -> ClaimStatus:
    """Status of a claim that the test arm is ``expect`` than the other.

    A claim of no gain is reproduced when the arm is worse, or when the 90 % interval excludes gains of
    ``margin`` or more: a difference that was not found does not show that there is none.
    """
    if expect in ("better", "worse"):
        opposite = "worse" if expect == "better" else "better"
        return "reproduced" if verdict == expect else "contradicted" if verdict == opposite else "not resolved"
    forbidden, allowed = ("better", "worse") if expect == "not_better" else ("worse", "better")
    if verdict == forbidden:
        return "contradicted"
    bound = inner[1] if expect == "not_better" else -inner[0]
    return "reproduced" if verdict == allowed or bound < margin else "not resolved"


def evaluate(
    spec: Spec, verdicts: Frame, contrasts: Sequence[Compared], paper: Mapping[str, Any], caption: str
) -> Table:
    """A row for each claim of the paper on arms of this matrix, then for each claim that only the matrix file makes.

    A claim whose two arms are a pre-registered contrast takes that contrast's verdict; one whose arms merely
    exist is compared here, marked exploratory, and corrected among its like.
    """
    registered = {(c.test, c.against): c for c in contrasts}
    names = {arm.name for arm in spec.arms}
    stated = [dict(claim) for claim in paper.get("claims", ())]
    claims = [claim for claim in stated if {claim["test"], claim["against"]} <= names]
    if len(claims) < len(stated):
        caption += f" {len(stated) - len(claims)} further claims concern arms that this matrix does not have."
    known = {(claim["test"], claim["against"]) for claim in claims}
    claims += [
        {"statement": c.claim, "test": c.test, "against": c.against, "expect": c.expect, "remark": NONE}
        for c in spec.analysis.contrasts
        if c.claim and (c.test, c.against) not in known
    ]
    exploratory = _exploratory(claims, registered, spec, verdicts)
    rows = [_row(claim, registered, exploratory, paper) for claim in claims]
    return Table("claims", caption, COLUMNS, tuple(rows))


def _exploratory(
    claims: Sequence[Mapping[str, Any]],
    registered: Mapping[tuple[str, str], Compared],
    spec: Spec,
    verdicts: Frame,
) -> dict[tuple[str, str], Compared]:
    pairs = [(c["test"], c["against"]) for c in claims if (c["test"], c["against"]) not in registered]
    found = {pair: d for pair in pairs if (d := difference_of(verdicts, *pair, spec)) is not None}
    adjusted = CORRECTIONS[spec.analysis.correction].function([d.p for d in found.values()])
    return {
        pair: Compared("", *pair, DEFAULT_MARGIN, difference, p)
        for (pair, difference), p in zip(found.items(), adjusted, strict=True)
    }


def _row(
    claim: Mapping[str, Any],
    registered: Mapping[tuple[str, str], Compared],
    exploratory: Mapping[tuple[str, str], Compared],
    paper: Mapping[str, Any],
) -> dict[str, str]:
    pair = (claim["test"], claim["against"])
    row = {
        "claim": claim["statement"],
        "paper": paper_figures(claim, paper),
        "arms": f"{pair[0]} over {pair[1]}",
        "ours": NONE,
        "p": NONE,
        "registered": NONE,
        "status": "not tested",
    }
    compared = registered.get(pair) or exploratory.get(pair)
    if compared is None or compared.difference is None:
        return row
    d = compared.difference
    margin = compared.margin or DEFAULT_MARGIN
    return row | {
        "ours": f"{points(d.value)} {interval(d.low, d.high, signed=True)}",
        "p": p_value(compared.adjusted_p),
        "registered": compared.id or "exploratory",
        "status": judge(claim["expect"], compared.verdict, d.inner, margin),
    }


def paper_figures(claim: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """The paper's numbers for both arms of a claim, from its tables; else the claim's remark."""
    table = paper.get("tables", {}).get(claim.get("table"))
    if table is None:
        return str(claim.get("remark", NONE))
    test, against = table["rows"][claim["test"]], table["rows"][claim["against"]]
    labels = paper.get("labels", {})
    each = [
        f"{labels.get(name, name)} {decimal(test[name], 1)} against {decimal(against[name], 1)}"
        for name in test
        if name in against
    ]
    return f"{'; '.join(each)} ({table['source']})"
