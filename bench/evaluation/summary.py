"""What ``summary.json`` says of each benchmark: counts, measures with intervals, baselines, and of which records."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

from bench.benchmarks.imported import row_hash
from bench.evaluation.baselines import baselines
from bench.evaluation.selection import Selection
from bench.records import STATES, Frame, Problem


def measures(verdicts: Frame, samples: int) -> dict[str, dict[str, float]]:
    """avg@k, pass@k and maj@k with interval, counts and MDE; empty where there is no verdict."""
    from bench.stats.samples import sample_metrics  # scipy is slow to import

    return {name: asdict(found) for name, found in sample_metrics(verdicts, samples).items()} if len(verdicts) else {}


def summarise(selection: Selection, verdicts: Frame, samples: int, records: Mapping[str, str]) -> dict[str, Any]:
    """One benchmark's part of the summary.

    verdicts: its rows; accuracy is over the ``n`` rows there are, of the ``expected`` ones; errors count as not right.
    records: id to ``record_hash`` of the problems that are asked.
    """
    dataset = selection.dataset
    states: Counter[str] = Counter(verdicts["state"]) if len(verdicts) else Counter()
    errors: Counter[str] = Counter(verdicts.loc[verdicts["state"] == "error", "method"]) if len(verdicts) else Counter()
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "synthetic": dataset.synthetic,
        "passed_over": dict(dataset.passed_over),
        "records": len(dataset.problems),
        "problems": len(selection.problems),
        "records_sha256": records_hash(records),
        "unscorable": {problem.id: problem.unscorable for problem in dataset.problems if problem.unscorable},
        "expected": len(selection.problems) * samples,
        "n": len(verdicts),
        "accuracy": float(verdicts["correct"].mean()) if len(verdicts) else None,
        "measures": measures(verdicts, samples),
        "baselines": asdict(baselines(dataset.problems, selection.problems)),
        "states": {state: states[state] for state in STATES},
        "errors": dict(errors.most_common(5)),
        "tokens": int(verdicts["tokens"].sum()) if len(verdicts) else 0,
    }


def records_hash(records: Mapping[str, str]) -> str:
    """SHA-256 over what ``record_hashes`` gives, whatever its order."""
    return hashlib.sha256("".join(f"{id}\0{records[id]}\n" for id in sorted(records)).encode()).hexdigest()


def record_hashes(problems: Sequence[Problem]) -> dict[str, str]:
    """Id to SHA-256 over a problem's fields and its images' bytes, the same wherever the files lie."""
    image, names = cache(_image_hash), [field.name for field in fields(Problem)]
    return {
        problem.id: row_hash({name: getattr(problem, name) for name in names}, [image(path) for path in problem.images])
        for problem in problems
    }


def _image_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"
