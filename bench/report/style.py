"""The common style of all figures. The same figure has the same bytes in every run."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart, with its pale colours darkened for white paper.
COLOURS = ("#0b6e8f", "#c8501e", "#2e7d4f", "#8a4f9e", "#b0831a", "#4b5cc4", "#a03050", "#5b6470")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
ACCENT, INK, QUIET, GRID = "#0b6e8f", "#1d2329", "#5b6470", "#e3e6ea"
TONE_COLOURS = {"better": "#1f7a4d", "worse": "#b3401f", "unresolved": "#5b6470"}
TONE_MARKERS = {"better": "^", "worse": "v", "unresolved": "D"}

SETTINGS: dict[str, object] = {
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": "#9aa3ad",
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "vold-bench",
    "svg.fonttype": "path",
}


@contextmanager
def canvas(width: float, height: float) -> Iterator["Figure"]:
    """A figure of ``width`` x ``height`` inches. It needs no display and changes no global state."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = SETTINGS
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def as_svg(figure: "Figure") -> bytes:
    """A figure as SVG: the same bytes each time."""
    svg = io.BytesIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out above, at the figure's resolution and not at the 72 dpi of SVG
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def axis_label(text: str, limit: int = 34) -> str:
    """``text`` for an axis: at most ``limit`` characters, without control characters."""
    clean = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def series_style(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the series ``index``. Series of the same colour differ in marker and line."""
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
        "linestyle": LINES[turn % len(LINES)],
    }
