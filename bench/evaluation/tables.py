"""From responses to tables: items, responses, verdicts (parquet) and summary.json, the same bytes for the same log."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.evaluation.items import write_items
from bench.evaluation.selection import Selection
from bench.evaluation.summary import measures, record_hashes, summarise
from bench.records import Column, Frame, Problem, Response, ResponseKey, Verdict, columns
from vold.answers import VERSION
from vold.files import publish_directory

TableRow = dict[str, Any]


def write_tables(
    out: Path,
    selections: Sequence[Selection],
    responses: Mapping[ResponseKey, Response],
    verdicts: Mapping[ResponseKey, Verdict],
    samples: int,
    provenance: Mapping[str, Any],
    hashes: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Publish ``out`` whole, from responses and the verdicts on them. A missing response is an absent row.

    hashes: by benchmark, the ``record_hashes`` of the problems, where they are known already.
    """
    judged: list[Frame] = []
    summary: dict[str, Any] = {}
    with publish_directory(out) as scratch:
        write_items(scratch / "items.parquet", selections)
        with _ResponseTable(scratch / "responses.parquet") as answered:
            for selection in selections:
                benchmark = selection.dataset.benchmark
                records = hashes[benchmark] if hashes is not None else record_hashes(selection.problems)
                judged.append(_judged(selection, responses, verdicts, samples, records, answered))
                summary[benchmark] = {
                    **summarise(selection, judged[-1], samples, records),
                    "prompt": provenance["prompts"].get(benchmark),
                }
        table = pd.concat([frame for frame in judged if len(frame)] or judged, ignore_index=True)
        table.to_parquet(scratch / "verdicts.parquet", index=False)
        scoring = {"mode": "strict", "version": VERSION}
        rest = {key: value for key, value in provenance.items() if key != "prompts"}
        (first, *others) = summary.values()
        overall = measures(table, samples) if others else first["measures"]
        whole = {**rest, "scoring": scoring, "measures": overall, "benchmarks": summary}
        (scratch / "summary.json").write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _judged(
    selection: Selection,
    responses: Mapping[ResponseKey, Response],
    verdicts: Mapping[ResponseKey, Verdict],
    samples: int,
    records: Mapping[str, str],
    answered: "_ResponseTable",
) -> Frame:
    """A row a response with its verdict; the responses themselves go to ``answered`` on the way."""
    columns: dict[str, list[Any]] = {}  # a dictionary a row takes ten times the memory
    for problem in selection.problems:
        for sample in range(samples):
            key = (problem.benchmark, problem.id, sample)
            response = responses.get(key)
            if response is not None:
                answered.add(response)
                row = _verdict_row(selection, problem, response, verdicts[key])
                for name, value in {**row, "record": records[problem.id]}.items():
                    columns.setdefault(name, []).append(value)
    return pd.DataFrame(columns)


class _ResponseTable:
    """A parquet file of responses, written in pieces so that only one piece is in memory."""

    _ROWS = 1024

    def __init__(self, path: Path) -> None:
        types = {column.name: _pandas_type(column) for column in columns(Response)}
        empty = pd.DataFrame({name: [] for name in types}).astype(types)
        self._schema = pa.Schema.from_pandas(empty, preserve_index=False)
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[TableRow] = []

    def __enter__(self) -> "_ResponseTable":
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, response: Response) -> None:
        self._rows.append({name: getattr(response, name) for name in self._schema.names})
        if len(self._rows) == self._ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _pandas_type(column: Column) -> str:
    """``Int64`` of pandas holds integers and missing values."""
    return "str" if column.type is str else "Int64" if column.optional else "int64"


def _verdict_row(selection: Selection, problem: Problem, response: Response, verdict: Verdict) -> TableRow:
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
