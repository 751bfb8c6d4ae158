"""Values of options that have a syntax of their own: splits, ids, data of text tasks and settings of execution."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks.registry import BENCHMARKS
from bench.errors import ConfigurationError
from bench.evaluation_request import without_none
from bench.hints import nearest
from bench.matrix.plan import parse_setting
from bench.matrix.spec import check_execution


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


def execution_options(options: Mapping[str, object], texts: Sequence[str]) -> dict[str, Any]:
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
