"""The command line: which commands there are, and how an error ends one. Nothing heavy is imported before one runs."""

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from bench.cli import bridge, check, compare, data, evaluate, export, info, matrix, preflight, score, show, train
from bench.errors import EXIT_CODES, ErrorClass, ExitCode, VoldBenchError, classify, is_disk_full, raised_here
from bench.terminal import printable

# A blank line begins a new one.
_EPILOG = "\n\n".join(["Exit codes:", *(f"{code.value} {text}" for code, text in EXIT_CODES.items())])
app = typer.Typer(
    name="vold-bench",
    help="Train, evaluate and compare reasoning transfer from a text-only teacher to a vision-language student.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run-matrix")(matrix.run_matrix)
app.command("report")(matrix.report)
app.command("check")(check.check)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("show")(show.show)
app.command("score")(score.score)
app.command("export")(export.export)
app.command("traces")(train.traces)
app.command("preflight")(preflight.preflight)
app.command("doctor")(info.doctor)
app.add_typer(train.app, name="train")
app.add_typer(info.smallworld, name="smallworld")
app.add_typer(data.app, name="data")
app.add_typer(bridge.app, name="bridge")


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    if debug:
        os.environ["VOLD_BENCH_DEBUG"] = "1"


def fail(error: BaseException) -> NoReturn:
    """Show an error as one block and leave with its exit code."""
    if os.environ.get("VOLD_BENCH_DEBUG"):
        sys.stderr.write(printable("".join(traceback.format_exception(error))))
    kind = classify(error)
    refused = isinstance(error, VoldBenchError) or (isinstance(error, RuntimeError) and raised_here(error))
    foreseen = refused or kind is not ErrorClass.FAILED
    code = error.exit_code if isinstance(error, VoldBenchError) else kind.exit_code if foreseen else ExitCode.INTERNAL
    title = code.name.lower().replace("_", " ") if foreseen else "internal error, please report it"
    text = printable(str(error) or type(error).__name__)
    lines = [f"error ({title}):", *(f"  {line}" for line in text.splitlines())]
    if is_disk_full(error):
        lines.append("  The disk is full. Nothing finished is lost; free some space and run the same command again.")
    if not foreseen:
        lines.append(f"  {type(error).__name__}; the option --debug before the command shows where")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(code)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except Exception as error:
        fail(error)
