"""One trial in a process of its own: ``python -m perf.run_trial JSON``.

The argument holds the fields of ``Trial``; the last line of standard output is a ``Measured`` as JSON.
"""

import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path

from perf.trial import Measured, Trial, memory_mb


def measure(trial: Trial) -> Measured:
    """Run ``trial`` in this process, whose peak memory is then the trial's."""
    with tempfile.TemporaryDirectory() as scratch:
        if trial.side == "trl":
            from perf.trl_side import run_trl as run
        else:
            from perf.own_side import run_ours as run
        steps, held = run(trial, Path(scratch))
    peak = memory_mb("VmHWM")
    return Measured(trial.side, trial.images, tuple(steps[trial.warmup :]), peak, peak - held)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with redirect_stdout(sys.stderr):
        measured = measure(Trial(**json.loads(sys.argv[1])))
    print(json.dumps(asdict(measured)))
