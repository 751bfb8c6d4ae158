"""The registry of benchmarks: one module each, which turns records into problems.

A new benchmark is a module with a ``BENCHMARK`` and an entry in ``_MODULES``. It then can be imported, scored strictly,
evaluated with this project's prompts and exported. Further features have registries of their own: official prompts
(``bench.prompts.official``), official scoring (``bench.scoring.official``), generated problems
(``bench.smallworld.records``) and VLMEvalKit's scorer (``bench.bridges.vlmeval_scorer``). An error names the registry
that has no entry.
"""

from collections.abc import Iterable
from pathlib import Path

from bench.benchmarks import imported, logicvista, mathvision, mathvista, mmmu_pro, repository, transcription
from bench.benchmarks.base import Benchmark, Dataset, DatasetError
from bench.records import Problem

_MODULES = (mmmu_pro, mathvision, mathvista, logicvista, transcription)
BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}


def read_benchmark(benchmark: str, root: Path, split: str | None = None, *, require_images: bool = True) -> Dataset:
    """Read a split from a benchmark's directory, which is imported or has its repository's files, or from one file.

    split: None means the first split, in the benchmark's order, with all records and images.
    require_images: False is for blind evaluation and for scoring. It reads the same split, or the first one if no split
        is complete.

    Raises DatasetError.
    """
    description = find_benchmark(benchmark)
    if imported.is_imported(root):
        return imported.read_imported(description, root, split, require_images=require_images)
    return repository.read_repository(description, root, split, require_images=require_images)


def available_splits(benchmark: str, root: Path) -> list[str]:
    """The splits with records in a benchmark's directory, complete or not. Raises DatasetError."""
    description = find_benchmark(benchmark)
    if imported.is_imported(root):
        return imported.imported_splits(description, root)
    return repository.repository_splits(description, root)


def find_benchmark(name: str) -> Benchmark:
    """The benchmark with this name. Raises DatasetError."""
    if name not in BENCHMARKS:
        raise DatasetError(f"unknown benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def pooled(names: Iterable[str]) -> list[str]:
    """Those of some benchmarks whose mean is the accuracy of a model: the ones that measure reasoning, or else all.

    A name that is not in the registry, such as that of a text-only set, counts as reasoning.
    """
    names = list(names)
    perception = {name for name, benchmark in BENCHMARKS.items() if benchmark.measures == "perception"}
    return [name for name in names if name not in perception] or names


def load_problems(benchmark: str, root: Path, split: str | None = None) -> list[Problem]:
    """The problems of ``read_benchmark``."""
    return list(read_benchmark(benchmark, root, split).problems)
