"""From responses to tables: items, responses, verdicts (parquet) and summary.json, the same bytes for the same log."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.evaluation.items import write_items
from bench.evaluation.log import Key
from bench.evaluation.selection import Selection
from bench.evaluation.summary import measures, record_hashes, summarise
from bench.records import Problem, Response, Verdict
from vold.files import publish_directory

Row = dict[str, Any]


def write_tables(
    out: Path,
    selections: Sequence[Selection],
    responses: Mapping[Key, Response],
    verdicts: Mapping[Key, Verdict],
    samples: int,
    provenance: Mapping[str, Any],
) -> None:
    """Publish ``out`` whole, from responses and the verdicts on them. A missing response is an absent row."""
    answered: list[Row] = []
    judged: list[Row] = []
    summary: dict[str, Any] = {}
    for selection in selections:
        rows: list[Row] = []
        records = record_hashes(selection.problems)
        for problem in selection.problems:
            for sample in range(samples):
                key = (problem.benchmark, problem.id, sample)
                if key in responses:
                    answered.append(_response_row(problem, responses[key]))
                    row = _verdict_row(selection, problem, responses[key], verdicts[key])
                    rows.append({**row, "record": records[problem.id]})
        benchmark = selection.dataset.benchmark
        summary[benchmark] = {
            **summarise(selection, pd.DataFrame(rows), samples, records),
            "prompt": provenance["prompts"].get(benchmark),
        }
        judged += rows
    table = pd.DataFrame(judged)
    with publish_directory(out) as scratch:
        write_items(scratch / "items.parquet", selections)
        counts = {"prompt_tokens": "Int64", "visual_tokens": "Int64"}  # where the engine knows them
        pd.DataFrame(answered).astype(counts).to_parquet(scratch / "responses.parquet", index=False)
        table.to_parquet(scratch / "verdicts.parquet", index=False)
        rest = {key: value for key, value in provenance.items() if key != "prompts"}
        whole = {**rest, "scoring": "strict", "measures": measures(table, samples), "benchmarks": summary}
        (scratch / "summary.json").write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", encoding="utf-8")


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
