"""From responses to tables: items, responses, verdicts (parquet) and summary.json, the same bytes for the same log."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.evaluation.items import write_items
from bench.evaluation.log import Key
from bench.evaluation.selection import Selection
from bench.records import STATES, Problem, Response, Verdict
from bench.scoring import score
from vold.files import publish_directory

Row = dict[str, Any]


def write_tables(
    out: Path,
    selections: Sequence[Selection],
    responses: Mapping[Key, Response],
    samples: int,
    provenance: Mapping[str, Any],
) -> None:
    """Score ``responses`` and publish ``out`` whole. A missing response is an absent row."""
    answered: list[Row] = []
    judged: list[Row] = []
    summary: dict[str, Any] = {}
    for selection in selections:
        rows: list[Row] = []
        for problem in selection.problems:
            for sample in range(samples):
                response = responses.get((problem.benchmark, problem.id, sample))
                if response is not None:
                    answered.append(_response_row(problem, response))
                    rows.append(_verdict_row(selection, problem, response, score(problem, response)))
        summary[selection.dataset.benchmark] = _summary(selection, rows, samples)
        judged += rows
    shown = provenance["prompts"]
    for benchmark, part in summary.items():
        part["prompt"] = shown.get(benchmark)
    with publish_directory(out) as scratch:
        write_items(scratch / "items.parquet", selections)
        counts = {"prompt_tokens": "Int64", "visual_tokens": "Int64"}  # where the engine knows them
        pd.DataFrame(answered).astype(counts).to_parquet(scratch / "responses.parquet", index=False)
        pd.DataFrame(judged).to_parquet(scratch / "verdicts.parquet", index=False)
        rest = {key: value for key, value in provenance.items() if key != "prompts"}
        text = json.dumps({**rest, "scoring": "strict", "benchmarks": summary}, indent=1, sort_keys=True)
        (scratch / "summary.json").write_text(text + "\n", encoding="utf-8")


def _response_row(problem: Problem, response: Response) -> Row:
    return {
        "benchmark": problem.benchmark,
        "id": response.id,
        "sample": response.sample,
        "text": response.text,
        "tokens": response.tokens,
        "finish_reason": response.finish_reason,
        "prompt_tokens": response.prompt_tokens,
        "visual_tokens": response.visual_tokens,
    }


def _verdict_row(selection: Selection, problem: Problem, response: Response, verdict: Verdict) -> Row:
    return {
        "benchmark": problem.benchmark,
        "dataset": selection.dataset.name,
        "synthetic": selection.dataset.synthetic,
        "id": problem.id,
        "cluster": problem.cluster,
        "category": problem.category,
        "sample": response.sample,
        "state": verdict.state,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "normalised": verdict.normalised,
        "method": verdict.method,
        "finish_reason": response.finish_reason,
        "tokens": response.tokens,
    }


def _summary(selection: Selection, rows: Sequence[Row], samples: int) -> Row:
    """accuracy is over the ``n`` rows there are, of the ``expected`` ones; errors count as not right."""
    states = Counter(row["state"] for row in rows)
    dataset = selection.dataset
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "synthetic": dataset.synthetic,
        "records": len(dataset.problems),
        "problems": len(selection.problems),
        "unscorable": {problem.id: problem.unscorable for problem in dataset.problems if problem.unscorable},
        "expected": len(selection.problems) * samples,
        "n": len(rows),
        "accuracy": sum(row["correct"] for row in rows) / len(rows) if rows else None,
        "states": {state: states[state] for state in STATES},
        "errors": dict(Counter(row["method"] for row in rows if row["state"] == "error").most_common(5)),
        "tokens": sum(row["tokens"] for row in rows),
    }
