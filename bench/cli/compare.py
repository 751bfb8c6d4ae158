"""``vold-bench compare``: what changed between two evaluations, and what their difference means."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import Json, ResultArgument, StoreOption, open_store
from bench.errors import ExitCode
from bench.report.numbers import interval, p_value, points
from bench.terminal import printable

if TYPE_CHECKING:
    from bench.review.comparison import Layer, ResultComparison
    from bench.stats.estimates import Difference

_SHOWN = 12
_STYLES = {"same": "dim", "differs": "bold", "not recorded": "italic", "unknown": "italic"}


def compare(
    a: ResultArgument,
    b: Annotated[str, typer.Argument(help="Another evaluation; the difference is B minus A.")],
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Compare two evaluations: what changed, the paired difference, and the problems gained and lost."""
    from bench.review.comparison import compare_results
    from bench.review.results import find_result

    home = open_store(store)
    comparison = compare_results(find_result(a, home), find_result(b, home))
    if as_json:
        print_json(comparison.to_json())
    else:
        _show(comparison, Console(highlight=False))
    if not (comparison.same_model or comparison.about_the_model):
        raise typer.Exit(ExitCode.INCOMPLETE)


def conclusion(comparison: "ResultComparison") -> str:
    """One sentence that says what the comparison shows."""
    d, p = comparison.difference, p_value(comparison.difference.p)
    size = f"{points(d.value)} points {interval(d.low, d.high, signed=True)}, p {p if p[0] == '<' else f'= {p}'}"
    resolves = f"effects of {points(d.mde, signed=False)} points or more are found with 80 % power"
    unchecked = (
        f"; not checked because neither result records it: {_names(comparison.unchecked)}"
        if comparison.unchecked
        else ""
    )
    if comparison.about_the_model:
        only = f"Only the model differs in what is recorded{unchecked}" if unchecked else "Only the model differs"
        if comparison.outcome == "not resolved":
            return f"{only}. B against A is not resolved: {size}; {resolves}."
        return f"{only}. B is {comparison.outcome} than A: {size}."
    if not comparison.changed:
        same = unchecked or ": both are the same evaluation"
        return f"Nothing that is recorded differs{same}."
    names = _names(comparison.changed)
    if comparison.same_model:
        return f"The model is the same, so the difference comes from {names}: {size}{unchecked}."
    return f"No claim about the model: {names} may also explain the difference ({size})."


def _names(layers: "tuple[Layer, ...]") -> str:
    names = [layer.name for layer in layers if layer.name != "model"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _show(comparison: "ResultComparison", console: Console) -> None:
    from bench.display.summary import note_synthetic

    console.print(f"A  {printable(comparison.a)}", markup=False)
    console.print(f"B  {printable(comparison.b)}", markup=False)
    console.print(_layers(comparison.layers))
    console.print(_differences(comparison))
    note_synthetic(comparison.synthetic, console)
    counts, n = comparison.counts, comparison.counts.n
    console.print(
        f"{n} shared responses: {counts.both} right in both, {counts.only_a} in A alone, {counts.only_b} in B alone, "
        f"{counts.neither} in neither"
    )
    if comparison.same_model:
        console.print(
            f"same text: {counts.same_text} of {n}; same number of tokens: {counts.same_length} of {n}; "
            f"verdicts that flip: {counts.only_a + counts.only_b}"
        )
    for name, ids in (("gained", comparison.problems.gained), ("lost", comparison.problems.lost)):
        shown = "  ".join(printable(f"{dataset}:{id}") for dataset, id in ids[:_SHOWN])
        more = f"  and {len(ids) - _SHOWN} more (--json has all)" if len(ids) > _SHOWN else ""
        console.print(f"{name} {len(ids)}: {shown}{more}" if ids else f"{name} 0", markup=False)
    console.print(Text(conclusion(comparison), style="bold"))


def _layers(layers: "tuple[Layer, ...]") -> Table:
    table = Table(Column("layer", no_wrap=True), Column("", no_wrap=True), Column("how", overflow="fold"))
    for layer in layers:
        table.add_row(layer.name, Text(layer.state, style=_STYLES[layer.state]), Text(printable(layer.detail)))
    return table


def _differences(comparison: "ResultComparison") -> Table:
    from bench.display.summary import pooled_label

    table = Table("data", "B - A, 95 % interval", "p", "MDE", "n")
    rows = dict(comparison.datasets)
    if len(comparison.pooled) > 1:
        rows[pooled_label(comparison.pooled, rows)] = comparison.difference
    for name, d in rows.items():
        table.add_row(Text(printable(name)), f"{points(d.value)} {interval(d.low, d.high, signed=True)}", p_value(d.p),
                      points(d.mde, signed=False), _count(d))  # fmt: skip
    return table


def _count(d: "Difference") -> str:
    return f"{d.n}, {d.missing} in one alone" if d.missing else str(d.n)
