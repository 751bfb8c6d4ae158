"""Where the records of benchmarks are, from the values of ``--data`` and ``--benchmark``."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.benchmarks.registry import BENCHMARKS, find_benchmark
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.smallworld.sources import SMALLWORLD, dataset_path, generated_benchmarks, generated_data_path
from vold.data.images import cache_directory

DEFAULT_DATA = f"{SMALLWORLD}test?n=150"


def data_sources(data: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark to source, from the values of ``--data`` (the small world if empty) and ``--benchmark``.

    Raises ConfigurationError for an unknown benchmark and for a directory without benchmarks.
    """
    for name in benchmarks:
        if name not in BENCHMARKS:
            raise ConfigurationError(f"--benchmark {name}: unknown benchmark; {nearest(name, BENCHMARKS)}")
    sources: dict[str, str] = {}
    for entry in data or (DEFAULT_DATA,):
        name, equals, source = entry.partition("=")
        if not (source if equals else entry).strip():
            raise ConfigurationError(f"--data {entry}: names no directory; write DIRECTORY or BENCHMARK=DIRECTORY")
        if entry.startswith(SMALLWORLD):
            generated = generated_benchmarks()
            sources |= {name: entry for name in BENCHMARKS if name in generated or name in benchmarks}
        elif equals and name in BENCHMARKS:
            sources[name] = source
        else:
            sources |= _inside(Path(entry).expanduser(), benchmarks)
    missing = [name for name in benchmarks if name not in sources]
    if missing:
        raise ConfigurationError(f"--benchmark {','.join(missing)}: no data; add --data {missing[0]}=DIRECTORY")
    return {name: source for name, source in sources.items() if not benchmarks or name in benchmarks}


def _inside(root: Path, benchmarks: Sequence[str]) -> dict[str, str]:
    """The benchmarks in directories of their names under ``root``, or ``root`` itself as the only one requested."""
    sources = {name: str(root / name) for name in BENCHMARKS if (root / name).is_dir()}
    if sources:
        return sources
    if len(benchmarks) == 1 and root.exists():
        return {benchmarks[0]: str(root)}
    names = ", ".join(BENCHMARKS)
    raise ConfigurationError(f"--data {root}: holds no directory named {names}; or write BENCHMARK={root}")


def benchmark_path(benchmark: str, data: Sequence[str]) -> Path:
    """Where one benchmark's records are, from the values of ``--data``; $VOLD_BENCH_DATA/BENCHMARK if there are none.

    Raises ConfigurationError where no directory is named or the directory does not hold the benchmark.
    """
    if data:
        source = data_sources(data, [benchmark])[benchmark]
        if source.startswith(SMALLWORLD):
            return dataset_path(benchmark, source, generated_data_path(cache_directory().with_name("smallworld")))
        return Path(source).expanduser()
    root = os.environ.get("VOLD_BENCH_DATA")
    if not root:
        raise ConfigurationError(
            f"--data: name the directory of {benchmark}'s records, or set VOLD_BENCH_DATA to the directory of all "
            "benchmarks"
        )
    return Path(root) / find_benchmark(benchmark).name
