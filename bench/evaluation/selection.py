"""The problems of an evaluation, selected from its data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import prompts
from bench.benchmarks import registry
from bench.benchmarks.base import Dataset
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.hints import nearest
from bench.records import Problem
from vold.seeding import generator


@dataclass(frozen=True, slots=True)
class Selection:
    """A data set with its selected problems, in the order in which the model is asked."""

    dataset: Dataset
    problems: tuple[Problem, ...]


def read_selections(config: EvalConfig, data: Mapping[str, Path]) -> list[Selection]:
    """The selected problems of each benchmark.

    data: the path of each benchmark's records. A benchmark that has none of ``config.ids`` is left out. Raises
    DatasetError for damaged records, and ConfigurationError for a benchmark without data, an unknown id, and a
    benchmark without a problem that can be scored.
    """
    template = prompts.find_template(config.template)
    for name in _names(config, data):
        template.check(name)
    datasets = [_read(config, name, data[name]) for name in _names(config, data)]
    if config.ids is not None:
        _check_ids(config.ids, datasets)
    selections = [select(dataset, config.limit, config.subset_seed, config.ids) for dataset in datasets]
    for selection in selections:
        dataset = selection.dataset
        if not selection.problems and config.ids is None:
            raise ConfigurationError(
                f"{data[dataset.benchmark]}: none of the {len(dataset.problems)} {dataset.benchmark} records of split "
                f"{dataset.split!r} can be scored; give records with answers, or leave the benchmark out"
            )
    return [selection for selection in selections if selection.problems]


def select(dataset: Dataset, limit: int | None, seed: int, ids: Sequence[str] | None = None) -> Selection:
    """The problems that can be scored, in the order of the records.

    ids: restricts them. limit: keeps so many, the first of a shuffle with ``seed``.
    """
    wanted = None if ids is None else set(ids)
    problems = [p for p in dataset.problems if not p.unscorable and (wanted is None or p.id in wanted)]
    if limit is not None and limit < len(problems):
        order = generator(seed, "subset", dataset.name, dataset.split).permutation(len(problems))
        problems = [problems[index] for index in sorted(order[:limit])]
    return Selection(dataset, tuple(problems))


def _names(config: EvalConfig, data: Mapping[str, Path]) -> list[str]:
    wanted = config.benchmarks if config.benchmarks is not None else tuple(data)
    if missing := [name for name in wanted if name not in data]:
        raise ConfigurationError(f"no data for {', '.join(missing)}; give the path of its records, or leave it out")
    if not wanted:
        raise ConfigurationError("nothing to evaluate; name at least one benchmark and its data")
    return sorted(wanted, key=list(registry.BENCHMARKS).index)


def _read(config: EvalConfig, name: str, path: Path) -> Dataset:
    return registry.read_benchmark(name, path, config.splits.get(name), require_images=not config.blind)


def _check_ids(ids: Sequence[str], datasets: Sequence[Dataset]) -> None:
    """Raises ConfigurationError for an id that no data set has, and for one that cannot be scored in any of them."""
    reasons: dict[str, str] = {}
    for problem in (problem for dataset in datasets for problem in dataset.problems):
        reasons[problem.id] = reasons.get(problem.id, problem.unscorable) and problem.unscorable
    names = ", ".join(dataset.name for dataset in datasets)
    for id in ids:
        if id not in reasons:
            raise ConfigurationError(f"{id!r} is not a problem of {names}; {nearest(id, reasons)}")
        if reasons[id]:
            raise ConfigurationError(f"{id!r} cannot be scored: {reasons[id]}; leave it out")
