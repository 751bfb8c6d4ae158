"""The figures of a report, drawn from the numbers of its tables."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.records import Frame
from bench.report.contrasts import TONES, ContrastResult
from bench.report.doses import DoseCurve
from bench.report.model import Figure
from bench.report.numbers import percent, points
from bench.report.style import (
    ACCENT,
    GRID,
    INK,
    QUIET,
    TONE_COLOURS,
    TONE_MARKERS,
    as_svg,
    axis_label,
    canvas,
    series_style,
)
from bench.report.tables import ArmAccuracies
from bench.stats.cells import RUN_KEY

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

SMOOTH_FROM = 20
WINDOW = 5
DOSES = {
    "sft.steps": "length of the cold start, SFT steps",
    "rl.distill.weight": "weight of the teacher term",
    "rl.steps": "RL steps",
}
PANELS = {
    "reward_mean": "reward",
    "kl": "teacher KL, nats per token",
    "entropy": "entropy, nats",
    "completion_tokens": "length, tokens",
}


def accuracy_figure(accuracies: ArmAccuracies, caption: str) -> Figure:
    """The accuracy of each arm with its interval; ticks are the accuracies of single runs."""
    arms = accuracies.ranked
    with canvas(8, 0.8 + 0.36 * len(arms)) as figure:
        axes = figure.subplots()
        for row, arm in enumerate(arms):
            accuracy = accuracies.total[arm]
            axes.plot(
                [100 * accuracy.low, 100 * accuracy.high], [row, row], color=ACCENT, lw=2.2, solid_capstyle="butt"
            )
            axes.plot(100 * accuracy.value, row, "o", color=ACCENT, ms=7, zorder=3)
            for value in accuracies.by_run[arm]:
                axes.plot([100 * value] * 2, [row + 0.16, row + 0.36], color=QUIET, lw=1.3)
        _name_rows(axes, [axis_label(arm) for arm in arms])
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, % (line: 95 % interval; short ticks below: single runs)")
        svg = as_svg(figure)
    alt = "Accuracy with 95 % interval: " + "; ".join(
        f"{arm} {percent(a.value)} % [{percent(a.low)}, {percent(a.high)}]"
        for arm, a in ((arm, accuracies.total[arm]) for arm in arms)
    )
    return Figure("accuracy", caption, alt, svg)


def forest_figure(contrasts: Sequence[ContrastResult], caption: str) -> Figure | None:
    """Paired differences: pooled in bold, students and benchmarks below, the margin as a band and the MDE as ticks."""
    shown = [c for c in contrasts if c.difference is not None]
    if not shown:
        return None
    lines = sum(1 + len(c.students) + len(c.families) for c in shown)
    with canvas(8, 1.0 + 0.27 * lines + 0.25 * len(shown)) as figure:
        axes = figure.subplots()
        names, positions, y = [], [], 0.0
        for c in shown:
            top = y
            names.append(f"{c.id}: {c.comparison.label()}")
            positions.append(y)
            _pooled(axes, c, y)
            parts = [
                *((name, d, "o") for name, d in c.students.items()),
                *((name, d, "s") for name, d in c.families.items()),
            ]
            for name, d, marker in parts:
                y += 1
                names.append(axis_label(name))
                positions.append(y)
                axes.plot([100 * d.low, 100 * d.high], [y, y], color=QUIET, lw=1.2)
                axes.plot(100 * d.value, y, marker, color=QUIET, ms=4)
            if c.margin:
                width = 100 * c.margin
                axes.fill_between([-width, width], top - 0.5, y + 0.5, color="#dfe9ee", lw=0, zorder=0)
            y += 1.6
        axes.axvline(0, color=INK, lw=1)
        _name_rows(axes, names, positions)
        bold = {f"{c.id}: " for c in shown}
        for text in axes.get_yticklabels():
            if any(text.get_text().startswith(start) for start in bold):
                text.set_fontweight("bold")
        axes.set_xlabel("difference, points")
        svg = as_svg(figure)
    alt = "Paired differences in points: " + "; ".join(
        f"{c.id} {c.comparison.pair} {points(d.value)} [{points(d.low)}, {points(d.high)}], {c.verdict}"
        for c in shown
        if (d := c.difference) is not None
    )
    return Figure("forest", caption, alt, svg)


def _pooled(axes: "Axes", c: ContrastResult, y: float) -> None:
    assert c.difference is not None
    d, tone = c.difference, TONES[c.verdict]
    axes.plot([100 * d.low, 100 * d.high], [y, y], color=TONE_COLOURS[tone], lw=2.6, solid_capstyle="butt")
    axes.plot(100 * d.value, y, TONE_MARKERS[tone], color=TONE_COLOURS[tone], ms=8, zorder=3)
    for side in (-1, 1):
        axes.plot(side * 100 * c.mde, y, "|", color=INK, ms=11, mew=1.1)


def family_figure(accuracies: ArmAccuracies, caption: str) -> Figure:
    """The accuracy of each arm by benchmark: one panel per benchmark, one row per arm."""
    arms, names = accuracies.ranked, accuracies.families
    columns = min(len(names), 4)
    lines = -(-len(names) // columns)
    with canvas(max(5.0, 1.6 + 2.05 * columns), lines * (0.75 + 0.25 * len(arms))) as figure:
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, family in zip(grid.ravel(), names, strict=False):
            for row, arm in enumerate(arms):
                accuracy = accuracies.family.get((arm, family))
                if accuracy is None:
                    axes.plot(50, row, "x", color=QUIET, ms=4)
                    continue
                axes.plot([100 * accuracy.low, 100 * accuracy.high], [row, row], color=ACCENT, lw=1.6)
                axes.plot(100 * accuracy.value, row, "o", color=ACCENT, ms=4.5)
            axes.set_title(axis_label(family, 26), fontsize=8.5)
            _name_rows(axes, [axis_label(arm) for arm in arms])
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 50, 100])
        for axes in grid.ravel()[len(names) :]:
            axes.set_visible(False)
        figure.supxlabel("accuracy, %", fontsize=9.5)
        svg = as_svg(figure)
    alt = "Accuracy of each arm on each benchmark; the table next to this figure has the numbers."
    return Figure("families", caption, alt, svg)


def curve_figure(data: Frame, order: Sequence[str], caption: str) -> Figure | None:
    """Reward, teacher KL, entropy and length over RL steps: the mean over runs in a band from lowest to highest."""
    panels = [metric for metric in PANELS if not data.empty and (data["metric"] == metric).any()]
    arms = [arm for arm in order if not data.empty and (data["arm"] == arm).any()]
    if not panels:
        return None
    with canvas(8.6, 0.5 + 2.7 * -(-len(panels) // 2) + 0.2 * -(-len(arms) // 3)) as figure:
        grid = figure.subplots(-(-len(panels) // 2), 2, sharex=True, squeeze=False)
        for axes, metric in zip(grid.ravel(), panels, strict=False):
            for index, arm in enumerate(arms):
                own = data[(data["arm"] == arm) & (data["metric"] == metric)]
                if not own.empty:
                    _curve(axes, own, arm, index)
            axes.set_title(PANELS[metric])
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("RL step")
        handles, names = _legend(list(grid.ravel()))
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8.5)
        svg = as_svg(figure)
    alt = (
        f"Training curves over RL steps, panels {', '.join(PANELS[p] for p in panels)}; arms {', '.join(arms)}; "
        "the table next to this figure has the last values."
    )
    return Figure("curves", caption, alt, svg)


def _curve(axes: "Axes", own: Frame, arm: str, index: int) -> None:
    wide = own.pivot_table(index="step", columns=RUN_KEY, values="value").sort_index()
    if len(wide) >= SMOOTH_FROM:
        wide = wide.rolling(WINDOW, center=True, min_periods=1).mean()
    steps, style = wide.index.to_numpy(), series_style(index)
    axes.fill_between(steps, wide.min(axis=1), wide.max(axis=1), color=style["color"], alpha=0.13, lw=0)
    axes.plot(steps, wide.mean(axis=1), label=axis_label(arm), lw=1.5, ms=4, markevery=max(1, len(steps) // 6), **style)


def _legend(all_axes: Sequence["Axes"]) -> tuple[list["Artist"], list[str]]:
    handles: dict[str, Artist] = {}
    for axes in all_axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    return list(handles.values()), list(handles)


def dose_figure(curve: DoseCurve, accuracies: ArmAccuracies, references: Sequence[str], caption: str) -> Figure | None:
    """Accuracy against a numeric setting, one line per combination of the other axes; None below two doses."""
    lines: Mapping[str, list[tuple[float, str]]] = {
        name: [(x, arm) for x, arm in line if arm in accuracies.total] for name, line in curve.lines.items()
    }
    doses = sorted({x for line in lines.values() for x, _ in line})
    if len(doses) < 2:
        return None
    with canvas(8, 4.2) as figure:
        axes = figure.subplots()
        step = min(b - a for a, b in pairwise(doses))
        log = doses[0] > 0 and doses[-1] / doses[0] >= 30
        for index, (name, line) in enumerate(lines.items()):
            # Shifted a little, so that intervals of the same dose do not cover each other.
            shift = 0.0 if log else (index - (len(lines) - 1) / 2) * step * 0.06
            values = [accuracies.total[arm] for _, arm in line]
            axes.errorbar(
                [x + shift for x, _ in line],
                [100 * v.value for v in values],
                yerr=[[100 * (v.value - v.low) for v in values], [100 * (v.high - v.value) for v in values]],
                label=axis_label(name),
                capsize=2.5,
                elinewidth=1,
                lw=1.6,
                ms=5.5,
                **series_style(index),
            )
        for arm in references:
            value = 100 * accuracies.total[arm].value
            axes.axhline(value, color=QUIET, lw=1.1, ls=(0, (4, 3)))
            axes.annotate(
                axis_label(arm), (1, value), xycoords=("axes fraction", "data"), xytext=(4, 0),
                textcoords="offset points", va="center", color=QUIET, fontsize=8.5, annotation_clip=False,
            )  # fmt: skip
        if log:
            axes.set_xscale("log")
        axes.set_xticks(doses, [f"{x:g}" for x in doses])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(DOSES.get(curve.key, curve.key))
        axes.set_ylabel("accuracy, % (95 % interval)")
        figure.legend(loc="outside lower center", ncols=4, fontsize=8.5)
        svg = as_svg(figure)
    alt = f"Accuracy against {curve.key}: " + "; ".join(
        f"{name}: " + ", ".join(f"{x:g} gives {percent(accuracies.total[arm].value)} %" for x, arm in line)
        for name, line in lines.items()
        if line
    )
    return Figure(f"dose_{curve.axis}", caption, alt, svg)


def _name_rows(axes: "Axes", names: Sequence[str], positions: Sequence[float] | None = None) -> None:
    """Name the rows of a plot from top to bottom."""
    at = list(range(len(names))) if positions is None else list(positions)
    axes.set_yticks(at, names)
    axes.set_ylim(max(at) + 0.7, min(at) - 0.7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID)
