"""``vold-bench check``: a quick small-world pass, compared with the tracked baseline."""

import hashlib
import os
from pathlib import Path

from bench import gate_output
from bench.errors import ExitCode
from bench.gate import IncompleteRun, Margins, RunSummary, check, read_baseline, summarise, write_baseline

ROOT = Path(__file__).parents[1]
MATRIX, PROFILE = ROOT / "ablations" / "check.yaml", "check"
BASELINE = ROOT / "results" / "baselines" / "check.json"


def run(update: bool = False, as_json: bool = False, junit: Path | None = None) -> int:
    """Run the check's matrix, compare it with the tracked baseline (or record it), print, and return the exit code.

    Raises:
        ConfigurationError: the baseline is missing, unreadable or of another specification.
        IncompleteRun: a stage failed, or responses are missing.
    """
    from bench.matrix.results import load
    from bench.matrix.run import STORE, run_matrix
    from bench.matrix.store import Store

    # A store of its own for each state of the code: a stage of other code is never taken for this code's.
    store = STORE.parent / "check" / _code_digest()
    done = run_matrix(MATRIX, profile=PROFILE, store=store, reports=None)
    unfinished = {name: outcome for name, outcome in done.outcomes.items() if outcome.state != "done"}
    if unfinished:
        names = ", ".join(sorted(unfinished))
        raise IncompleteRun(f"the check did not finish, nothing to compare: {names}", done.common_error)
    summary = RunSummary.model_validate(summarise(load(done.plan, Store(store))))
    if update:
        write_baseline(summary, BASELINE)
        print(f"baseline recorded: {BASELINE}")
        return int(ExitCode.OK)
    result = check(summary, read_baseline(BASELINE), Margins())
    print(gate_output.as_json(result) if as_json else gate_output.as_text(result))
    if junit is not None:
        junit.write_bytes(gate_output.as_junit(result))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print("\n".join(gate_output.annotations(result)))
    return int(result.exit_code)


def _code_digest() -> str:
    """Hash of the trainer's and the suite's own source."""
    total = hashlib.sha256()
    for path in sorted(path for package in ("vold", "bench") for path in (ROOT / package).rglob("*.py")):
        total.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:12]
