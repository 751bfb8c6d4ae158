"""``vold-bench check``: compare a short run on the small world with the tracked baseline."""

import hashlib
import os
from pathlib import Path
from typing import Annotated

import typer

from bench.bundled import ABLATIONS, CHECK_BASELINE
from bench.cli.json_output import print_json
from bench.cli.options import Json
from bench.errors import ExitCode

MATRIX, PROFILE = ABLATIONS / "check.yaml", "check"
_SOURCE = Path(__file__).parents[2]


def check(
    update: Annotated[bool, typer.Option("--update", help="Record this run as the new baseline.")] = False,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write as well.")] = None,
    as_json: Json = False,
) -> None:
    """Check for regressions: run a short matrix on the small world and compare it with the tracked baseline."""
    from bench import gate, gate_output
    from bench.matrix.results import load
    from bench.matrix.run import STORE, run_matrix
    from bench.store import Store

    # Each state of the code has its own store, so that stages of other code are never reused.
    store = Store(STORE.parent / "check" / _code_digest())
    run = run_matrix(MATRIX, profile=PROFILE, store=store, reports=None)
    unfinished = sorted(name for name, outcome in run.outcomes.items() if outcome.state != "done")
    if unfinished:
        raise gate.IncompleteRun(
            f"the check did not finish, so nothing was compared: {', '.join(unfinished)}", run.common_error
        )
    summary = gate.RunSummary.model_validate(gate.summarise(load(run.plan, store)))
    if update:
        gate.write_baseline(summary, CHECK_BASELINE)
        if as_json:
            print_json({"baseline": CHECK_BASELINE})
        else:
            print(f"baseline recorded: {CHECK_BASELINE}")
        raise typer.Exit(ExitCode.OK)
    result = gate.check(summary, gate.read_baseline(CHECK_BASELINE), gate.Margins())
    print(gate_output.as_json(result) if as_json else gate_output.as_text(result))
    if junit is not None:
        junit.write_bytes(gate_output.as_junit(result))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print("\n".join(gate_output.annotations(result)))
    raise typer.Exit(result.exit_code)


def _code_digest() -> str:
    """Hash of the source of both packages."""
    total = hashlib.sha256()
    for path in sorted(path for package in ("vold", "bench") for path in (_SOURCE / package).rglob("*.py")):
        total.update(path.relative_to(_SOURCE).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:12]
