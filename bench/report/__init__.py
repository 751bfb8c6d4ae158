"""Reports: a matrix and its results as a page, Markdown, JSON, CSV tables and figures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.model import Results, Spec


def build_report(spec: "Spec", results: "Results", out_dir: Path) -> Path:
    """Write the report of ``results`` into ``out_dir`` and return the path of its page.

    The same results give the same bytes. Figures of an earlier report that this one does not have are removed.
    Raises ConfigurationError when the results have no response to a benchmark of the primary analysis, and OSError
    when the directory cannot be written.
    """
    from bench.report.analysis import analyse
    from bench.report.claims import load_paper
    from bench.report.render import report_files

    paper = load_paper()
    content = report_files(analyse(spec, results, paper), paper)
    figures = out_dir / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for path in figures.iterdir():
        if path.suffix in (".svg", ".png") and f"figures/{path.name}" not in content:
            path.unlink()
    for name, data in content.items():
        (out_dir / name).write_bytes(data)
    return out_dir / "index.html"
