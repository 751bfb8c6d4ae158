"""``vold-bench show``: one problem of an evaluation, whole, safe to print."""

from typing import TYPE_CHECKING, Annotated, Any

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
    from bench.review.results import EvaluationResult
    from bench.review.show import Shown, ShownImage
    from bench.store import Store


def show(
    id: Annotated[str, typer.Argument(help="The id of a problem.")],
    result: Annotated[
        str | None, typer.Option(help="As for compare \\[default: the newest that answered the problem].")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark or data set, where several have a problem of that id.")
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Show one problem of an evaluation whole: record, images, prompt, responses, verdicts."""
    from bench.review.results import find
    from bench.review.show import lookup

    home = open_store(store)
    source = find(result, home) if result else _newest(home, id)
    found = lookup(source, id, benchmark)
    if as_json:
        print_json({"result": source.id, "model": source.model, "problems": [shown.to_json() for shown in found]})
        return
    console = Console(highlight=False)
    for shown in found:
        _show(console, source, shown)


def _newest(store: "Store", id: str) -> "EvaluationResult":
    from bench.review.results import results

    finished = sorted(results(store), key=lambda found: found.path.stat().st_mtime, reverse=True)
    for found in finished:
        if id in set(found.verdicts["id"]):
            return found
    raise ConfigurationError(
        f"{id}: no finished evaluation in {store.root} answered it; name one with --result, or another --store"
    )


def _show(console: Console, result: "EvaluationResult", shown: "Shown") -> None:
    console.print(Rule(Text(printable(f"{shown.title} {shown.id}")), align="left"))
    config = result.summary.config
    _line(console, "result", f"{result.label}, {config['template']}")
    _record(console, shown.problem)
    for image in shown.images:
        _line(console, "image", _described(image))
    if shown.absent:
        _line(console, "absent", shown.absent)
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


def _verdict(console: Console, name: str, told: dict[str, Any]) -> None:
    _line(console, name, f"{told['state']} by {told['method'] or 'no rule'}")
    if told["extracted"]:
        _line(console, "extracted", f"{told['extracted']}  read as  {told['normalised']}")


def _record(console: Console, problem: "Problem") -> None:
    _line(console, "question", problem.question or "(on the page)")
    for label, option in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", problem.options, strict=False):
        _line(console, f"option {label}", option)
    precision = "" if problem.precision is None else f", to {problem.precision} decimals"
    _line(console, "gold", f"{problem.answer} ({problem.kind}{precision})")
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
