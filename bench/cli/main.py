"""The command line: its commands, and how an error or an interruption ends one.

Nothing heavy is imported before a command runs, so that ``--help`` stays fast.
"""

import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from bench.cli import (
    bridge,
    check,
    compare,
    data,
    evaluate,
    export,
    info,
    matrix,
    preflight,
    score,
    settings,
    show,
    train,
)
from bench.cli.options import example
from bench.errors import EXIT_CODES, ErrorClass, ExitCode, VoldBenchError, classify, is_disk_full, raised_here
from bench.terminal import printable

_KEPT = {
    "run-matrix": "Finished stages are kept, and the others resume from what they saved.",
    "check": "Finished stages are kept, and the others resume from what they saved.",
    "eval": "Finished evaluations and all responses received so far are kept.",
    "train": "The last saved training state is kept.",
    "traces": "All traces written so far are kept.",
}
"""What an interrupted command leaves behind and resumes from, by its name."""


class Commands(TyperGroup):
    """A group of commands that says on Ctrl-C what was saved and how to resume."""

    def invoke(self, ctx: Any) -> Any:  # the class of a context depends on the version of Typer
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = _KEPT.get(ctx.invoked_subcommand or "")
            advice = f" {kept} Run the same command again to resume." if kept else ""
            sys.stderr.write(f"\nStopped by the user.{advice}\n")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


# Blank lines separate the entries.
_EPILOG = "\n\n".join(["Exit codes:", *(f"{code.value} {text}" for code, text in EXIT_CODES.items())])
app = typer.Typer(
    name="vold-bench",
    cls=Commands,
    help="Train, evaluate and compare reasoning transfer from a text-only teacher to a vision-language student.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS = (
    ("run-matrix", matrix.run_matrix, "vold-bench run-matrix ablations/cold_start.yaml --plan"),
    ("report", matrix.build_report, "vold-bench report ablations/cold_start.yaml"),
    ("check", check.check, "vold-bench check --junit check.xml"),
    ("eval", evaluate.evaluate, "vold-bench eval --model runs/sft/out --data /data/benchmarks --benchmark mathvision"),
    ("compare", compare.compare, "vold-bench compare eval-0123456789ab runs/sft/out"),
    ("show", show.show, "vold-bench show mathvision:17 --result eval-0123456789ab"),
    ("score", score.score, "vold-bench score predictions.jsonl --benchmark mathvision --data /data/benchmarks"),
    ("export", export.export, "vold-bench export eval-0123456789ab --out exports --format lm-eval"),
    ("traces", train.traces, "vold-bench traces traces.yaml"),
    ("preflight", preflight.preflight, "vold-bench preflight rl.yaml --gpu 'H200 x 8'"),
    ("settings", settings.list_settings, "vold-bench settings rl.distill"),
    ("doctor", info.doctor, "vold-bench doctor --json"),
)
for _name, _function, _example in _COMMANDS:
    app.command(_name, epilog=example(_example))(_function)
app.add_typer(train.app, name="train")
app.add_typer(info.smallworld, name="smallworld")
app.add_typer(data.app, name="data")
app.add_typer(bridge.app, name="bridge")


def version() -> str:
    """The version, and in a checkout the commit, with ``+changed`` if tracked files differ from it."""
    from bench.matrix.provenance import git_state, installed

    git = git_state()
    commit = f" ({git['commit'][:12]}{'+changed' if git['changed'] else ''})" if git else ""
    return f"vold-bench {installed('vold-bench')}{commit}"


def _show_version(requested: bool) -> None:
    if requested:
        print(version())
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ["VOLD_BENCH_DEBUG"] = "1"


def fail(error: BaseException) -> NoReturn:
    """Print an error as one block and exit with its code."""
    if os.environ.get("VOLD_BENCH_DEBUG"):
        sys.stderr.write(printable("".join(traceback.format_exception(error))))
    kind = classify(error)
    own_refusal = isinstance(error, VoldBenchError) or (isinstance(error, RuntimeError) and raised_here(error))
    foreseen = own_refusal or kind is not ErrorClass.FAILED
    code = kind.exit_code if foreseen else ExitCode.INTERNAL
    if isinstance(error, VoldBenchError):
        code = error.exit_code
    title = code.name.lower().replace("_", " ") if foreseen else "internal error, please report it"
    text = printable(str(error) or type(error).__name__)
    lines = [f"error ({title}):", *(f"  {line}" for line in text.splitlines())]
    if is_disk_full(error):
        lines.append("  The disk is full. Finished work is kept; free some space and run the same command again.")
    if not foreseen:
        lines.append(f"  {type(error).__name__}; `vold-bench --debug COMMAND ...` shows where")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(code)


def main() -> None:
    """Run the command line; the entry point of ``vold-bench``."""
    try:
        app()
    except Exception as error:
        fail(error)
