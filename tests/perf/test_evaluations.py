"""The programs that kill, scale and time evaluations, at a small size."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perf.eval_scale import SAMPLES, measure_size
from tests.conftest import need

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_five_evaluations_killed_at_random_moments_lose_nothing_and_end_with_the_same_tables() -> None:
    command = [sys.executable, "-m", "perf.kill_evaluations", "--kills", "5", "--items", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    kills = re.match(r"(\d+) kills \((\d+) with a part of the 32 responses", finished.stdout)
    assert kills is not None and int(kills[1]) >= 5


@pytest.mark.slow
def test_the_harness_stays_small_and_imports_no_torch() -> None:
    small, large = measure_size(50 * SAMPLES), measure_size(500 * SAMPLES)
    assert not large["torch"]
    assert large["peak_mb"] < 300
    assert large["peak_mb"] - small["peak_mb"] < 60, json.dumps([small, large])


@pytest.mark.slow
def test_overhead_is_measured_behind_a_server() -> None:
    command = [sys.executable, "-m", "perf.eval_overhead", "--engine", "server", "--items", "4", "--latency", "0.05"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    cells = finished.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert cells[:2] == ["server", "16"] and float(cells[2]) > 0 and 0 < float(cells[-1]) < 50


@pytest.mark.slow
def test_harnesses_are_compared_on_the_same_records() -> None:
    need("lm_eval", "lm-eval")
    command = [sys.executable, "-m", "perf.eval_peers", "--items", "6", "--latency", "0.05", "--repeats", "1",
               "--sides", "straight,vold-bench,lm-eval"]  # fmt: skip
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    rows = [line.strip("| ").split(" | ") for line in finished.stdout.splitlines()[2:5]]
    assert [cells[0] for cells in rows] == ["straight", "vold-bench", "lm-eval"]
    assert rows[1][2] == rows[2][2], "both harnesses must read the same letters"
