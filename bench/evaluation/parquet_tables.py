"""From responses to a result: problems, responses and verdicts as parquet tables, and ``summary.json``.

The same responses give the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench import summary
from bench.evaluation.config import EvalConfig
from bench.evaluation.hashes import record_hashes
from bench.evaluation.measures import pooled_measures, summarise
from bench.evaluation.problem_table import write_problems
from bench.evaluation.selection import Selection
from bench.records import Column, Frame, Problem, Response, ResponseKey, Verdict, columns
from bench.summary import BenchmarkSummary, FirstPrompt, ModelRecord, ScoringRecord, Summary
from vold.answers import VERSION
from vold.files import publish_directory

TableRow = dict[str, object]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where responses come from. prompts: the first prompt of each benchmark. lm_eval: as in ``Summary``."""

    config: EvalConfig
    seed: int
    model: ModelRecord
    engine: Mapping[str, object]
    prompts: Mapping[str, FirstPrompt]
    lm_eval: Mapping[str, object] | None = None


def write_tables(
    out: Path,
    selections: Sequence[Selection],
    responses: Mapping[ResponseKey, Response],
    verdicts: Mapping[ResponseKey, Verdict],
    provenance: Provenance,
    hashes: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write ``out``, which appears when it is complete. A missing response has no row.

    verdicts: one for each response. hashes: the ``record_hashes`` of each benchmark's problems, if the caller has them.
    """
    samples = provenance.config.samples
    frames: list[Frame] = []
    parts: dict[str, BenchmarkSummary] = {}
    with publish_directory(out) as scratch:
        write_problems(scratch, selections)
        with _ResponseTable(scratch / "responses.parquet") as table:
            for selection in selections:
                benchmark = selection.dataset.benchmark
                records = hashes[benchmark] if hashes is not None else record_hashes(selection.problems)
                frame = _verdict_rows(selection, responses, verdicts, samples, records, table)
                frames.append(frame)
                parts[benchmark] = summarise(selection, frame, samples, records, provenance.prompts[benchmark])
        rows = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
        rows.to_parquet(scratch / "verdicts.parquet", index=False)
        summary.write(_summary(provenance, parts, rows), scratch)


def _summary(provenance: Provenance, parts: dict[str, BenchmarkSummary], rows: Frame) -> Summary:
    return Summary(
        config=provenance.config.model_dump(mode="json"),
        seed=provenance.seed,
        model=provenance.model,
        engine=dict(provenance.engine),
        scoring=ScoringRecord("strict", VERSION),
        measures=pooled_measures(rows, parts, provenance.config.samples),
        benchmarks=parts,
        lm_eval=None if provenance.lm_eval is None else dict(provenance.lm_eval),
    )


def _verdict_rows(
    selection: Selection,
    responses: Mapping[ResponseKey, Response],
    verdicts: Mapping[ResponseKey, Verdict],
    samples: int,
    records: Mapping[str, str],
    table: "_ResponseTable",
) -> Frame:
    """A row per response with its verdict; adds the responses to ``table`` on the way."""
    columns: dict[str, list[object]] = {}  # a dictionary per row would take ten times the memory
    for problem in selection.problems:
        for sample in range(samples):
            key = (problem.benchmark, problem.id, sample)
            response = responses.get(key)
            if response is not None:
                table.add(response)
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
