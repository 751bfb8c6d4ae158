"""Values of options that have a syntax of their own: data, splits, ids and settings of execution."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks import BENCHMARKS, find_benchmark
from bench.errors import ConfigurationError
from bench.evaluation_request import without_none
from bench.hints import nearest
from bench.matrix.plan import parse_setting
from bench.matrix.spec import check_execution
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


def task_directories(data: Sequence[str], tasks: Sequence[str]) -> dict[str, Path]:
    """Text task to the directory of its records, from values DIRECTORY and TASK=DIRECTORY of ``--data``.

    Raises ConfigurationError for a task without a directory.
    """
    directories: dict[str, Path] = {}
    for entry in data:
        name, equals, path = entry.partition("=")
        own = equals and name in tasks
        directories |= {name: Path(path).expanduser()} if own else dict.fromkeys(tasks, Path(entry).expanduser())
    missing = [task for task in tasks if task not in directories]
    if missing:
        raise ConfigurationError(f"--data: no directory for {missing[0]}; add --data {missing[0]}=DIRECTORY")
    return {task: directories[task] for task in tasks}


def requested_splits(texts: Sequence[str], benchmarks: Sequence[str]) -> dict[str, str]:
    """Benchmark to split, from ``BENCHMARK=SPLIT``, or from ``SPLIT`` for each of ``benchmarks`` that has it.

    A benchmark with a single split is left out, because that split is used anyway. Raises ConfigurationError for an
    unknown split, a benchmark that is not evaluated, and a second split of one benchmark.
    """
    result: dict[str, str] = {}
    for text in texts:
        name, _, split = text.rpartition("=")
        candidates = [name] if name else benchmarks
        matches = [benchmark for benchmark in candidates if split in _splits(benchmark, text)]
        if not matches:
            valid = [each for benchmark in candidates for each in _splits(benchmark, text)]
            raise ConfigurationError(f"--split {text}: no such split; {nearest(split, valid)}")
        if name and name not in benchmarks:
            raise ConfigurationError(
                f"--split {text}: {name} is not evaluated; add its data, or choose from {', '.join(benchmarks)}"
            )
        for benchmark in matches:
            if len(_splits(benchmark, text)) > 1 and result.setdefault(benchmark, split) != split:
                raise ConfigurationError(
                    f"--split {text}: {benchmark} has the split {result[benchmark]} already; name one split per "
                    "benchmark, and evaluate the other in a second run"
                )
    return result


def _splits(benchmark: str, text: str) -> list[str]:
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"--split {text}: unknown benchmark; {nearest(benchmark, BENCHMARKS)}")
    return list(BENCHMARKS[benchmark].splits)


def problem_ids(texts: Sequence[str] | None) -> list[str] | None:
    """Ids, and the lines of each @FILE; None means all. Raises ConfigurationError where a file cannot be read."""
    if not texts:
        return None
    ids: list[str] = []
    for text in texts:
        if text.startswith("@"):
            try:
                ids += Path(text[1:]).expanduser().read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"--ids {text}: cannot be read ({error}); name a text file of ids") from error
        else:
            ids += text.split(",")
    return [id.strip() for id in ids if id.strip()]


def execution_options(options: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Nested settings of ``options``, then those of ``--execution`` such as ``vllm.max_length=64``; the last counts.

    Raises ConfigurationError for an unknown name.
    """
    settings = without_none(options)
    for text in texts:
        override = parse_setting(text, "--execution", check_execution, "SETTING")
        *groups, name = override.key.split(".")
        group_settings = settings
        for group in groups:
            group_settings = group_settings.setdefault(group, {})
        group_settings[name] = override.value
    return settings
