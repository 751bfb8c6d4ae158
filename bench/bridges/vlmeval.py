"""Responses scored by VLMEvalKit's own code, and our verdicts beside its, with a reason for every row that differs."""

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
from bench.errors import ConfigurationError
from bench.records import Prediction, Problem, Verdict
from vold.answers import reference_labels
from vold.answers.labels import of as labels_of

START_SECONDS = 600
"""Importing it takes half a minute on an idle machine."""
ROW_SECONDS = 1.0
"""On average; a row that hangs uses up what the others leave."""
_RUNS_CODE = "mathvision"


@dataclass(frozen=True, slots=True)
class ComparedResponse:
    """One response with both verdicts; ``reason`` is None where they agree."""

    ours: Verdict
    theirs: Theirs
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class ScorerComparison:
    """version: of ms-vlmeval. network: how its process was kept from the network."""

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
            "rows": [_shown(row) for row in self.rows],
        }


def _shown(row: ComparedResponse) -> dict[str, Any]:
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
    """Ask VLMEvalKit about ``predictions``; ``verdicts`` are ours on them, in their order, of scoring ``mode``.

    cot: score MMMU-Pro as its data sets named ``_COT`` do. trust_responses: needed for MathVision, whose scorer
    evaluates them as Python. Raises ConfigurationError where that is missing, where ms-vlmeval is not installed, and
    where its process ends or hangs at a row.
    """
    if benchmark == _RUNS_CODE and not trust_responses:
        raise ConfigurationError(
            "VLMEvalKit evaluates MathVision responses as Python code; where you trust whoever wrote these, say so "
            "with --trust-responses"
        )
    try:
        found = version("ms-vlmeval")
    except PackageNotFoundError:
        raise ConfigurationError(
            "the bridge needs VLMEvalKit; install it with `pip install 'vold-bench[vlmeval]'`"
        ) from None
    known = {problem.id: problem for problem in problems}
    network, theirs = ask(benchmark, [sheet_row(known[prediction.id], prediction) for prediction in predictions], cot)
    rows = tuple(
        ComparedResponse(own, other, reason(known[prediction.id], own, other))
        for prediction, own, other in zip(predictions, verdicts, theirs, strict=True)
    )
    return ScorerComparison(benchmark, mode, found, network, rows)


def sheet_row(problem: Problem, prediction: Prediction) -> dict[str, Any]:
    """What the scorer's process is told of one response."""
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


def ask(benchmark: str, rows: Sequence[dict[str, Any]], cot: bool = False) -> tuple[str, list[Theirs]]:
    """(how the network is closed, a verdict on each row), from a process of its own."""
    seconds = START_SECONDS + ROW_SECONDS * len(rows)
    question = json.dumps({"benchmark": benchmark, "cot": cot, "rows": rows, "cpu_seconds": int(seconds)})
    with tempfile.TemporaryDirectory() as scratch:
        lines, end = _run(question, Path(scratch), seconds)
    if len(lines) != len(rows) + 1:
        place = f"at record {rows[len(lines) - 1]['id']!r}" if lines else "before the first record"
        raise ConfigurationError(f"VLMEvalKit's scorer {end} {place}; leave that response out, or look at it\n")
    return json.loads(lines[0])["network"], [Theirs(*json.loads(line)) for line in lines[1:]]


def _run(question: str, scratch: Path, seconds: float) -> tuple[list[str], str]:
    """(lines of its answer, how it ended)."""
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
            answer, _ = process.communicate(question, timeout=seconds)
            last = (scratch / "errors.txt").read_text(errors="replace").strip().rpartition("\n")[2]
            end = f"ended with code {process.returncode} ({last[:300]})"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            answer, _ = process.communicate()
    return [line for line in answer.splitlines(keepends=True) if line.endswith("\n")], end
