"""A program that runs one trial in its own process: ``python -m perf.run_trial JSON``.

The argument has the fields of ``Trial`` as JSON. The last line of standard output is a ``TrialResult`` as JSON.
"""

import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from perf.trial import Trial, TrialResult, memory_mb


def measure_trial(trial: Trial) -> TrialResult:
    """Run ``trial`` in this process, so that the peak memory of the process is that of the trial."""
    with tempfile.TemporaryDirectory() as scratch:
        if trial.side == "trl":
            from perf.trl_side import run_trl as run
        else:
            from perf.own_side import run_ours as run
        steps, held = run(trial, Path(scratch))
    peak = memory_mb("VmHWM")
    return TrialResult(trial.side, trial.images, tuple(steps[trial.warmup :]), peak, peak - held)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with redirect_stdout(sys.stderr):
        measured = measure_trial(Trial(**json.loads(sys.argv[1])))
    print(json.dumps(asdict(measured)))
