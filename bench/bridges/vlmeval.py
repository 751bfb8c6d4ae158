"""Scores responses with VLMEvalKit's own code and explains every difference to our verdicts."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.bridges.reasons import MEANING, Reason, Theirs, reason
from bench.bridges.vlmeval_scorer import SCORERS
from bench.errors import ConfigurationError
from bench.records import Prediction, Problem, Verdict
from vold.answers import reference_labels
from vold.answers.labels import of as labels_of

START_SECONDS = 600
"""Time limit for starting the process. Importing VLMEvalKit takes half a minute on an idle machine."""
ROW_SECONDS = 1.0
"""Average time limit per row. A row that hangs may use the time that the others leave."""
_RUNS_CODE = "mathvision"


@dataclass(frozen=True, slots=True)
class ComparedResponse:
    """A response with both verdicts. ``reason`` is None if they agree."""

    ours: Verdict
    theirs: Theirs
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class ScorerComparison:
    """All verdicts of both scorers. version: of ms-vlmeval. network: how its process was kept from the network."""

    benchmark: str
    mode: str
    version: str
    network: str
    rows: tuple[ComparedResponse, ...]

    @property
    def judged(self) -> list[ComparedResponse]:
        """The rows on which VLMEvalKit has a verdict without a judge model."""
        return [row for row in self.rows if row.theirs.right is not None]

    @property
    def reasons(self) -> dict[Reason, int]:
        counts = Counter(row.reason for row in self.rows)
        return {name: counts[name] for name in MEANING if counts[name]}

    def to_json(self) -> dict[str, Any]:
        judged = self.judged
        return {
            "benchmark": self.benchmark,
            "mode": self.mode,
            "ms_vlmeval": self.version,
            "network": self.network,
            "n": len(self.rows),
            "correct": sum(row.ours.correct for row in self.rows),
            "judged": len(judged),
            "judged_correct": {
                "ours": sum(row.ours.correct for row in judged),
                "vlmevalkit": sum(bool(row.theirs.right) for row in judged),
            },
            "agree": sum(row.reason is None for row in judged),
            "reasons": {name: {"n": count, "meaning": MEANING[name]} for name, count in self.reasons.items()},
            "rows": [_row_json(row) for row in self.rows],
        }


def _row_json(row: ComparedResponse) -> dict[str, object]:
    return {
        "id": row.ours.id,
        "sample": row.ours.sample,
        "state": row.ours.state,
        "correct": row.ours.correct,
        "extracted": row.ours.extracted,
        "vlmevalkit_correct": row.theirs.right,
        "vlmevalkit_extracted": row.theirs.extracted,
        "reason": row.reason,
    }


def compare(
    benchmark: str,
    problems: Sequence[Problem],
    predictions: Sequence[Prediction],
    verdicts: Sequence[Verdict],
    mode: str,
    *,
    cot: bool = False,
    trust_responses: bool = False,
) -> ScorerComparison:
    """Score ``predictions`` with VLMEvalKit and compare with our ``verdicts``, which are in the same order.

    mode: our scoring mode, for the record.
    cot: score MMMU-Pro like VLMEvalKit's data sets named ``_COT``.
    trust_responses: required for MathVision, whose scorer evaluates responses as Python.

    Raises ConfigurationError if this is missing, if the bridge has no scorer for the benchmark, if ms-vlmeval is not
    installed, and if its process ends or hangs.
    """
    if benchmark not in SCORERS:
        raise ConfigurationError(
            f"{benchmark}: VLMEvalKit scores only {', '.join(SCORERS)} here. Add its scorer to SCORERS in "
            "bench/bridges/vlmeval_scorer.py"
        )
    if benchmark == _RUNS_CODE and not trust_responses:
        raise ConfigurationError(
            "VLMEvalKit evaluates MathVision responses as Python code. If you trust the source of these responses, "
            "add --trust-responses"
        )
    try:
        installed = version("ms-vlmeval")
    except PackageNotFoundError:
        raise ConfigurationError(
            "the bridge needs VLMEvalKit. Install it with `pip install 'vold-bench[vlmeval]'`"
        ) from None
    by_id = {problem.id: problem for problem in problems}
    network, theirs = run_scorer(
        benchmark, [sheet_row(by_id[prediction.id], prediction) for prediction in predictions], cot
    )
    compared = tuple(
        ComparedResponse(own, other, reason(by_id[prediction.id], own, other))
        for prediction, own, other in zip(predictions, verdicts, theirs, strict=True)
    )
    return ScorerComparison(benchmark, mode, installed, network, compared)


def sheet_row(problem: Problem, prediction: Prediction) -> dict[str, object]:
    """The input of the scorer's process for one response."""
    labels = list(labels_of(problem.options))
    return {
        "id": problem.id,
        "question": problem.question,
        "options": problem.options[: len(labels)],
        "labels": labels,
        "answer": problem.answer,
        "gold_labels": sorted(reference_labels(problem.answer, problem.options)) if labels else [],
        "kind": problem.kind,
        "response": prediction.response,
        "extraction": prediction.extraction,
    }


def run_scorer(benchmark: str, rows: Sequence[dict[str, object]], cot: bool = False) -> tuple[str, list[Theirs]]:
    """Run the scorer in its process. Returns how it was kept from the network, and a verdict per row."""
    seconds = START_SECONDS + ROW_SECONDS * len(rows)
    task = json.dumps({"benchmark": benchmark, "cot": cot, "rows": rows, "cpu_seconds": int(seconds)})
    with tempfile.TemporaryDirectory() as scratch:
        lines, end = _run(task, Path(scratch), seconds)
    if len(lines) != len(rows) + 1:
        position = f"at record {rows[len(lines) - 1]['id']!r}" if lines else "before the first record"
        raise ConfigurationError(f"VLMEvalKit's scorer {end} {position}. Check this response, or leave it out\n")
    return json.loads(lines[0])["network"], [Theirs(*json.loads(line)) for line in lines[1:]]


def _run(task: str, scratch: Path, seconds: float) -> tuple[list[str], str]:
    """The complete lines of the process's output, and how it ended."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
        **dict.fromkeys(("HOME", "TMPDIR", "LMUData"), str(scratch)),
        **dict.fromkeys(("OMP_NUM_THREADS", "HF_HUB_OFFLINE"), "1"),
    }
    with (scratch / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.bridges.vlmeval_scorer"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=environment, cwd=scratch, start_new_session=True,
        )  # fmt: skip
        end = "hung"
        try:
            output, _ = process.communicate(task, timeout=seconds)
            last = (scratch / "errors.txt").read_text(errors="replace").strip().rpartition("\n")[2]
            end = f"ended with code {process.returncode} ({last[:300]})"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    return [line for line in output.splitlines(keepends=True) if line.endswith("\n")], end
