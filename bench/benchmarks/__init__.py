"""The four benchmarks, one file each: records in their own schemas become problems."""

from pathlib import Path

from bench.benchmarks import imported, logicvista, mathvision, mathvista, mmmu_pro, repository
from bench.benchmarks.base import Benchmark, Dataset, DatasetError
from bench.records import Problem

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK for module in (mmmu_pro, mathvision, mathvista, logicvista)
}

__all__ = [
    "BENCHMARKS",
    "Dataset",
    "DatasetError",
    "available_splits",
    "find_benchmark",
    "load_problems",
    "read_benchmark",
]


def read_benchmark(benchmark: str, root: Path, split: str | None = None, *, require_images: bool = True) -> Dataset:
    """Load a benchmark from its directory (its repository's files, or imported), or from one of its record files.

    split: None takes the first, in the benchmark's order, whose records and images are all there.
    require_images: False serves blind runs and scoring: the same split, or where none is whole the first. Raises
    DatasetError naming file, id and mend.
    """
    found = find_benchmark(benchmark)
    if imported.is_imported(root):
        return imported.read_imported(found, root, split, require_images=require_images)
    return repository.read_repository(found, root, split, require_images=require_images)


def available_splits(benchmark: str, root: Path) -> list[str]:
    """The splits with records in a benchmark's directory, complete or not. Raises DatasetError."""
    description = find_benchmark(benchmark)
    if imported.is_imported(root):
        return imported.imported_splits(description, root)
    return repository.repository_splits(description, root)


def find_benchmark(name: str) -> Benchmark:
    """A benchmark by its name; raises DatasetError."""
    if name not in BENCHMARKS:
        raise DatasetError(f"unknown benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def load_problems(benchmark: str, root: Path, split: str | None = None) -> list[Problem]:
    """The problems of ``read``."""
    return list(read_benchmark(benchmark, root, split).problems)
