"""The tables that ``vold-bench eval`` prints at the end: every number with n, interval, MDE and baselines."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench.benchmarks.registry import pooled
from bench.report.numbers import NONE, interval, percent, points
from bench.summary import Baselines, BenchmarkSummary, Measure, Summary
from bench.terminal import printable

_UNREAD = ("unparsed", "ambiguous", "truncated", "refused", "error")
_NOTE = (
    "MDE: the smallest true difference from another model that this number of problems shows in 80 % of repetitions, "
    "if the two models are right independently of each other. `vold-bench compare` pairs the problems and finds "
    "smaller differences."
)


def show(label: str, summary: Summary, console: Console) -> None:
    """Print the table of one evaluation, and below it the responses that could not be read as an answer."""
    samples = summary.samples
    console.print(Text(label, style="bold"))
    table = plain_table("data", "n", "% right,\n95 % interval", "MDE", "chance /\nmajority")
    parts = summary.benchmarks
    names = {benchmark: data_name(benchmark, part) for benchmark, part in parts.items()}
    for benchmark, part in parts.items():
        _rows(table, names[benchmark], part.measures, samples, part.expected, part.baselines)
    if len(together := {name: parts[name] for name in pooled(parts)}) > 1:
        expected = sum(part.expected for part in together.values())
        baselines = _mean_baselines(together.values())
        _rows(table, pooled_label(together, parts), summary.measures, samples, expected, baselines)
    console.print(table)
    for benchmark, part in parts.items():
        show_passed_over(names[benchmark], part.passed_over, console)
        if (left := unread(part)) != "none":
            console.print(f"{names[benchmark]}: not read as an answer: {left}", markup=False)
    note_synthetic([part.dataset for part in parts.values() if part.synthetic], console)


def show_judged(label: str, summary: Summary, judge: Mapping[str, Any], file: Path, console: Console) -> None:
    """Print the table with a judge's verdicts in place of ``unparsed``, and how many responses the judge read.

    judge, file: as in ``JudgedResult``.
    """
    show(f"{label}, judge {judge['model']} on what the rules left unparsed", summary, console)
    show_judge_report(judge, console)
    console.print(f"verdicts of the judge: {file}", markup=False, soft_wrap=True)


def show_judge_report(report: Mapping[str, Any], console: Console) -> None:
    """Print how many responses a judge read (``Judge.report``), and why the others have no verdict."""
    console.print(
        f"judge {printable(report['model'])} ({report['prompt']}): asked about {report['asked']} unparsed responses, "
        f"{report['answered']} answered",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    if missing := report["missing"]:
        why = printable(missing[0]["why"])
        console.print(
            f"{len(missing)} responses have no verdict and do not count as wrong: {why}; run the command again to ask "
            "again",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


class SplitName(Protocol):
    """``BenchmarkSummary`` or ``RequestForecast``: a split of a data set."""

    @property
    def dataset(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def synthetic(self) -> bool: ...


def data_name(benchmark: str, part: SplitName) -> str:
    """The data set, with the split if the benchmark has several."""
    from bench.benchmarks.registry import BENCHMARKS

    several = not part.synthetic and benchmark in BENCHMARKS and len(BENCHMARKS[benchmark].splits) > 1
    return f"{part.dataset} {part.split}" if several else part.dataset


def pooled_label(together: Collection[str], every: Collection[str]) -> str:
    """The name of the mean over the data sets ``together``: all of ``every``, or only those that measure reasoning."""
    return f"{'all' if len(together) == len(every) else 'reasoning'}, equal weights"


def show_passed_over(name: str, splits: Mapping[str, str], console: Console) -> None:
    """Print a line for each split that was not used because it lacks images."""
    from bench.benchmarks.base import passed_over_lines

    for line in passed_over_lines(splits):
        console.print(f"{name}: {line}", markup=False)


def plain_table(first: str, *others: str) -> Table:
    """An empty table of numbers that fits a narrow terminal: no frame, unbroken names, numbers on the right."""
    table = Table(Column(first, no_wrap=True), box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def note_synthetic(datasets: Sequence[str], console: Console) -> None:
    """Print the names of the synthetic data sets below a table."""
    if datasets:
        console.print(printable(f"synthetic problems, not a benchmark: {', '.join(datasets)}"), markup=False)


def note(console: Console) -> None:
    console.print(Text(_NOTE, style="dim"))


def unread(part: BenchmarkSummary) -> str:
    """The number of responses without an answer by state, and of missing responses; "none" if there are none."""
    counts = [(part.states[state], state) for state in _UNREAD] + [(part.missing, "missing")]
    return ", ".join(f"{count} {name}" for count, name in counts if count) or "none"


def _rows(
    table: Table, data: str, measures: Mapping[str, Measure], samples: int, expected: int, baselines: Baselines
) -> None:
    """Add one row per measure. The first row also has what all of them share."""
    free = f"{percent(baselines.chance)} / {percent(baselines.majority)}"
    if not measures:
        table.add_row(Text(printable(data)), f"0/{expected}", NONE, NONE, free)
    for name, measure in _with_all_samples(measures, samples):
        first = name.startswith("avg")
        table.add_row(
            Text(printable(data if first and samples == 1 else f"{data}, {name}" if first else f"  {name}")),
            f"{measure.n}/{expected}" if first else str(measure.items),
            f"{percent(measure.value)} {interval(measure.low, measure.high)}",
            points(measure.mde, signed=False),
            free if first else "",
        )


def _mean_baselines(parts: Collection[BenchmarkSummary]) -> Baselines:
    chance = sum(part.baselines.chance for part in parts) / len(parts)
    return Baselines(chance, sum(part.baselines.majority for part in parts) / len(parts))


def _with_all_samples(measures: Mapping[str, Measure], samples: int) -> Iterator[tuple[str, Measure]]:
    """avg@k, pass@k and maj@k; pass@j of fewer samples is only in ``summary.json``."""
    return ((name, measures[name]) for kind in ("avg", "pass", "maj") if (name := f"{kind}@{samples}") in measures)
