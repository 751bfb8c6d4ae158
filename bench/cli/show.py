"""``vold-bench show``: everything about one problem of an evaluation, safe to print on a terminal."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from bench.cli.json_output import print_json
from bench.cli.options import Json, StoreOption, open_store
from bench.errors import ConfigurationError
from bench.terminal import printable

if TYPE_CHECKING:
    from bench.records import Problem
    from bench.review.problem_view import ShownImage, ShownProblem
    from bench.review.results import EvaluationResult
    from bench.store import Store


def show(
    problem: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a problem, or BENCHMARK:ID as `compare` prints it.")
    ],
    result: Annotated[
        str | None,
        typer.Option(
            help="Evaluation: its directory, its id, or the name of a model in the store."
            " \\[default: the newest one with the problem]"
        ),
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark or data set, where several have a problem with this id.")
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Show everything about one problem of an evaluation: record, images, prompt, responses and verdicts."""
    from bench.review.problem_view import find_problem
    from bench.review.results import find_result

    home = open_store(store)
    source = find_result(result, home) if result else _newest(home, problem)
    name, id = (benchmark, problem) if benchmark else _split_name(source, problem)
    rows = find_problem(source, id, name)
    if as_json:
        print_json({"result": source.id, "model": source.model, "problems": [row.to_json() for row in rows]})
        return
    console = Console(highlight=False)
    for row in rows:
        _show(console, source, row)


def _newest(store: "Store", problem: str) -> "EvaluationResult":
    from bench.review.results import results

    finished = sorted(results(store), key=lambda result: result.path.stat().st_mtime, reverse=True)
    for result in finished:
        if _split_name(result, problem)[1] in set(result.verdicts["id"]):
            return result
    raise ConfigurationError(
        f"{problem}: no finished evaluation in {store.root} has this problem; name an evaluation with --result, or "
        "another --store"
    )


def _split_name(result: "EvaluationResult", problem: str) -> tuple[str | None, str]:
    """Benchmark or data set, and id, of ``BENCHMARK:ID``; None and the whole text where no such prefix is known."""
    prefix, colon, id = problem.partition(":")
    parts = result.summary.benchmarks
    known = {*parts, *(part.dataset for part in parts.values())}
    return (prefix, id) if colon and prefix in known else (None, problem)


def _show(console: Console, result: "EvaluationResult", shown: "ShownProblem") -> None:
    console.print(Rule(Text(printable(f"{shown.title} {shown.id}")), align="left"))
    config = result.summary.config
    _line(console, "result", f"{result.label}, {config['template']}")
    _record(console, shown.problem)
    for image in shown.images:
        _line(console, "image", _described(image))
    if shown.absent:
        _line(console, "missing", shown.absent)
    if shown.rendered:
        _block(console, "prompt, as the model reads it", shown.rendered)
    else:
        texts = [part.get("text", "") if part["type"] == "text" else "[image]" for part in shown.parts]
        _block(console, "prompt, before the chat template", "".join(texts))
    for sample in shown.samples:
        heading = f"response {sample['sample']} ({sample['tokens']} tokens, {sample['finish_reason']})"
        _block(console, heading, sample["text"])
        _verdict(console, "verdict", sample)
        for judged in shown.judged:
            if judged["sample"] == sample["sample"]:
                _verdict(console, f"with judge {judged['judge']}", judged)


def _verdict(console: Console, name: str, verdict: dict[str, object]) -> None:
    _line(console, name, f"{verdict['state']} by {verdict['method'] or 'no rule'}")
    if verdict["extracted"]:
        _line(console, "extracted", f"{verdict['extracted']}  read as  {verdict['normalised']}")


def _record(console: Console, problem: "Problem") -> None:
    _line(console, "question", problem.question or "(in the image)")
    for label, option in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", problem.options, strict=False):
        _line(console, f"option {label}", option)
    precision = "" if problem.precision is None else f", to {problem.precision} decimals"
    _line(console, "reference answer", f"{problem.answer} ({problem.kind}{precision})")
    if problem.category:
        _line(console, "category", problem.category)


def _described(image: "ShownImage") -> str:
    if not image.width:
        return f"{image.path}: cannot be read"
    return f"{image.path} ({image.width} x {image.height}, {image.bytes:,} bytes)"


def _line(console: Console, name: str, text: str) -> None:
    console.print(Text.assemble((f"{printable(name)}: ", "bold"), printable(text)), soft_wrap=True)


def _block(console: Console, name: str, text: str) -> None:
    console.print(Text(f"\n{name}:", style="bold"))
    console.print(Text(printable(text).rstrip("\n") or "(empty)"), soft_wrap=True)
