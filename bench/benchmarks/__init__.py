"""The four benchmarks, one file each: records in their own schemas become problems."""

from pathlib import Path

from bench.benchmarks import base, logicvista, mathvision, mathvista, mmmu_pro
from bench.benchmarks.base import Benchmark, Dataset, DatasetError
from bench.records import Problem

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (mmmu_pro, mathvision, mathvista, logicvista)
}

__all__ = ["BENCHMARKS", "Dataset", "DatasetError", "load", "read"]


def read(benchmark: str, root: Path, split: str | None = None, *, require_pictures: bool = True) -> Dataset:
    """Load a benchmark from its directory, or from one of its record files.

    split: None takes the first, in the benchmark's order, whose records and pictures are all there.
    require_pictures: False serves scoring, which needs none. Raises DatasetError naming file, id and mend.
    """
    if benchmark not in BENCHMARKS:
        raise DatasetError(f"unknown benchmark {benchmark!r}; choose from {', '.join(BENCHMARKS)}")
    return base.read(BENCHMARKS[benchmark], root, split, require_pictures=require_pictures)


def load(benchmark: str, root: Path, split: str | None = None) -> list[Problem]:
    """The problems of ``read``."""
    return list(read(benchmark, root, split).problems)
