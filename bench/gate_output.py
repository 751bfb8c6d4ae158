"""The result of the regression check as text, JSON, JUnit XML and GitHub annotations."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from bench.errors import ExitCode
from bench.gate import Check, GateResult


def as_json(result: GateResult) -> str:
    """The result as JSON; an infinite end of an interval is null."""
    checks = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in map(asdict, result.checks)
    ]
    content = {
        "schema": "vold-bench/gate@1",
        "exit_code": int(result.exit_code),
        "checks": checks,
        "notes": result.notes,
    }
    return json.dumps(content, indent=1)


def as_text(result: GateResult) -> str:
    """A table of the checks, worst first, then one line with the overall outcome."""
    header = ("", "check", "baseline", "run", "difference", "interval", "margin", "remark")
    order = {"regression": 0, "inconclusive": 1, "pass": 2}
    rows = [_cells_of(check) for check in sorted(result.checks, key=lambda check: order[check.outcome])]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    outcome = {ExitCode.OK: "pass", ExitCode.REGRESSION: "regression", ExitCode.INCOMPLETE: "inconclusive"}
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes), f"check: {outcome[result.exit_code]}"])


def _cells_of(check: Check) -> Sequence[str]:
    return (
        check.outcome,
        check.name,
        f"{check.baseline:.4f}",
        f"{check.run:.4f}",
        f"{check.difference:+.4f}",
        f"[{check.low:+.4f}, {check.high:+.4f}]",
        f"{check.margin:.4f}",
        check.remark,
    )


def as_junit(result: GateResult) -> bytes:
    """JUnit XML: a regression is a failure, and an inconclusive check is skipped with its reason."""
    counts = Counter(check.outcome for check in result.checks)
    suite = ElementTree.Element(
        "testsuite", name="vold-bench check", tests=str(len(result.checks)), failures=str(counts["regression"]),
        skipped=str(counts["inconclusive"]), errors="0",
    )  # fmt: skip
    for item in result.checks:
        case = ElementTree.SubElement(suite, "testcase", classname="vold-bench.check", name=item.name)
        if item.outcome == "regression":
            ElementTree.SubElement(case, "failure", message=_message(item))
        elif item.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped", message=_message(item))
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)


def annotations(result: GateResult) -> list[str]:
    """GitHub workflow commands for the checks that did not pass."""
    level = {"regression": "error", "inconclusive": "warning"}
    return [
        f"::{level[item.outcome]} title=vold-bench check::{_escape(_message(item))}"
        for item in result.checks
        if item.outcome != "pass"
    ]


def _message(item: Check) -> str:
    text = (
        f"{item.name}: {item.run:.4f}, baseline {item.baseline:.4f}; "
        f"difference {item.difference:+.4f} [{item.low:+.4f}, {item.high:+.4f}], margin {item.margin:.4f}"
    )
    return f"{text}; {item.remark}" if item.remark else text


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
