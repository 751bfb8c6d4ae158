"""``vold-bench export``: a finished evaluation in the forms of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.json_output import print_json
from bench.cli.options import Json, ResultArgument, StoreOption, listed, open_store


def export(
    result: ResultArgument,
    to: Annotated[Path, typer.Option(help="Directory that receives a directory for each format.")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="Only these, such as lm-eval,vlmeval,every-eval-ever,hub \\[default: all]."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model-name", help="The model's name there, such as organization/model.")
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Write a finished evaluation in the forms of other tools."""
    from bench import exports
    from bench.review.results import find

    written = exports.export(find(result, open_store(store)).path, to, listed(formats), model)
    if as_json:
        return print_json(written)
    for name, files in written.items():
        print(f"{name}:" + "".join(f"\n  {file}" for file in files) if files else f"{name}: nothing (see the guide)")
