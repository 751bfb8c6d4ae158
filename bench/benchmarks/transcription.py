"""Transcription: what text does the image show? It measures perception without reasoning.

This benchmark has no publisher and no data set of its own. A user brings images with their texts; the small world
generates some. A response is right if it states the text exactly, except for white space.
"""

from dataclasses import replace
from pathlib import Path

from bench.benchmarks.base import Benchmark, BenchmarkRow, Split, unscorable_reason
from bench.benchmarks.repository import image_path
from bench.records import Problem


def problem(row: BenchmarkRow) -> Problem:
    answer = row.text("answer")
    return Problem(
        benchmark="transcription",
        id=row.id,
        question=row.text("question"),
        images=(),
        options=(),
        answer=answer,
        kind="text",
        cluster=row.id,
        category=row.optional("category"),
        unscorable=unscorable_reason(answer, ()),
    )


def _repository(row: BenchmarkRow, root: Path) -> tuple[Path, ...]:
    return (image_path(row, root, row.text("image")),)


def _hub(row: BenchmarkRow) -> BenchmarkRow:
    return replace(row, images=(row.image("image"),))


def _tsv(row: BenchmarkRow, split: str) -> BenchmarkRow:
    return row


BENCHMARK = Benchmark(
    name="transcription",
    url="",
    splits={"test": Split(("test.jsonl",))},
    problem=problem,
    repository=_repository,
    hub=_hub,
    tsv=_tsv,
    measures="perception",
)
