"""``vold-bench export``: a finished evaluation in the formats of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.json_output import print_json
from bench.cli.options import Json, ResultArgument, StoreOption, open_store, split_commas


def export(
    result: ResultArgument,
    out: Annotated[Path, typer.Option(help="Directory that receives one directory per format.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Only these of lm-eval, vlmeval, every-eval-ever and hub. Repeatable, or separated by commas."
            " \\[default: all]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model-name", help="Name of the model in the exported files, such as organization/model."),
    ] = None,
    store: StoreOption = None,
    as_json: Json = False,
) -> None:
    """Write a finished evaluation in the formats of other tools."""
    from bench import exports
    from bench.review.results import find_result

    written = exports.export(find_result(result, open_store(store)).path, out, split_commas(formats), model)
    if as_json:
        return print_json(written)
    for name, files in written.items():
        print(
            f"{name}:" + "".join(f"\n  {file}" for file in files)
            if files
            else f"{name}: nothing to write for this result (see the guide)"
        )
