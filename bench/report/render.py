"""The files of a report: a self-contained page, Markdown, JSON, CSV tables and figures."""

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.claims import Paper
from bench.report.model import ReportData, Table

TEMPLATES = Path(__file__).parent / "templates"
CSV_TABLES = (
    "leaderboard", "secondary", "contrasts", "contrasts_students", "families", "clean", "claims", "training", "arms",
)  # fmt: skip
SCHEMA = "vold-bench/report@1"


def report_files(report: ReportData, paper: Paper) -> dict[str, bytes]:
    """The content of every file, by its path below the directory of the report."""
    texts = {
        "index.html": html_page(report, paper),
        "report.md": markdown_page(report, paper),
        "report.json": report_json(report),
    }
    texts |= {f"{name}.csv": table_csv(report.tables[name]) for name in CSV_TABLES}
    content = {path: text.encode() for path, text in texts.items()}
    for figure in report.figures.values():
        content[f"figures/{figure.id}.svg"] = figure.svg
    return content


def html_page(report: ReportData, paper: Paper) -> str:
    """The page. Its content policy allows its own style sheet and script by hash, and nothing from outside."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = _environment(autoescape=True)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("page.html.j2").render(
        **_context(report, paper),
        style=Markup(style),  # our own file, not data
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def markdown_page(report: ReportData, paper: Paper) -> str:
    """The text and tables of the page as GitHub-flavoured Markdown, with relative links to the figures."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    text = environment.get_template("report.md.j2").render(**_context(report, paper))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def report_json(report: ReportData) -> str:
    """All tables and sentences as JSON. The cells have the text of the page."""
    tables = {
        table.id: {"caption": table.caption, "columns": [c.key for c in table.columns], "rows": list(table.rows)}
        for table in report.tables.values()
        if table.id in CSV_TABLES
    }
    content = {
        "schema": SCHEMA,
        "name": report.name,
        "question": report.question,
        "synthetic": report.synthetic,
        "world": report.world,
        "verdicts": [{"id": s.id, "text": s.text, "verdict": s.verdict} for s in report.statements],
        "tables": tables,
        "figures": {f.id: {"caption": f.caption, "alt": f.alt} for f in report.figures.values()},
        "methods": list(report.methods),
        "caveats": list(report.caveats),
        "provenance": dict(report.provenance),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def table_csv(table: Table) -> str:
    """A table as CSV (RFC 4180) with a header. An apostrophe disarms text that a spreadsheet would run as a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_disarm(row[c.key]) if c.kind == "text" else row[c.key] for c in table.columns])
    return out.getvalue()


def escape_markdown(text: str) -> str:
    """``text`` escaped for a Markdown table cell, so that it renders as itself on one line."""
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)


def _disarm(text: str) -> str:
    return f"'{text}" if re.match(r"[=+\-@\t\r](?!\d)", text) else text


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=autoescape, undefined=StrictUndefined, keep_trailing_newline=True
    )


def _context(report: ReportData, paper: Paper) -> dict[str, object]:
    return {
        "report": report,
        "paper": paper.get("paper"),
        "doses": [figure for figure in report.figures.values() if figure.id.startswith("dose_")],
        "curves": report.figures.get("curves"),
        "training": report.tables["training"],
    }
