"""The generated data of the small world, addressed as ``smallworld/NAME?n=N``."""

import hashlib
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench.benchmarks.base import dataset_title
from bench.errors import ConfigurationError

SMALLWORLD = "smallworld/"


def dataset_path(benchmark: str, source: str, cache: Path) -> Path:
    """The directory under ``cache`` of the problems of ``smallworld/SPLIT?n=N``. It is written if it does not exist.

    Raises ConfigurationError for a source that the small world does not have; the message names the known ones.
    """
    split, n = parse_source(source)
    from bench.smallworld.records import write_datasets

    try:
        directories = write_datasets(split, n, cache)
    except KeyError as error:
        raise ConfigurationError(f"{source}: {error.args[0]}") from error
    if benchmark not in directories:
        raise ConfigurationError(
            f"{source}: the small world has no problems of {benchmark!r}, only of {', '.join(directories)}. Use the "
            "benchmark's own data, or add its record form to DATASETS in bench/smallworld/records.py"
        )
    return directories[benchmark]


def generated_benchmarks() -> list[str]:
    """The benchmarks whose record form the small world has."""
    from bench.smallworld.records import DATASETS

    return [dataset.benchmark for dataset in DATASETS]


def source_title(benchmark: str, source: str) -> str:
    """The name of a source's problems in titles: the data set of the small world, otherwise the benchmark."""
    if not source.startswith(SMALLWORLD):
        return benchmark
    from bench.smallworld.records import DATASETS

    return next(
        (dataset_title(dataset.name, True) for dataset in DATASETS if dataset.benchmark == benchmark), benchmark
    )


def prompts_path(source: str, cache: Path) -> Path:
    """The file under ``cache`` of the prompts of ``smallworld/SET?n=N``. It is written if it does not exist.

    Raises ConfigurationError for a source that the small world does not have; the message names the known ones.
    """
    name, n = parse_source(source)
    path = cache / f"prompts-{name}-{n}.jsonl"
    if not path.exists():
        from bench.smallworld.prompts import write_prompts

        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            write_prompts(name, n, work)
        except KeyError as error:
            raise ConfigurationError(f"{source}: {error.args[0]}") from error
        work.replace(path)
    return path


def generated_data_path(root: Path) -> Path:
    """The directory in ``root`` for data that the current version of the generator's code makes.

    After a change of this code the data are generated again. If their bytes are the same, identities do not change.
    """
    import bench.smallworld

    code = sorted(Path(bench.smallworld.__file__).parent.glob("*.py"))
    return root / hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]


def parse_source(source: str) -> tuple[str, int]:
    """The name and number in ``smallworld/NAME?n=N``. Raises ConfigurationError."""
    parts = urlsplit(source.removeprefix(SMALLWORLD))
    query = dict(parse_qsl(parts.query))
    if set(query) != {"n"} or not query["n"].isdigit() or int(query["n"]) < 1 or not parts.path:
        raise ConfigurationError(f"{source!r} does not have the form smallworld/NAME?n=N with n of 1 or more")
    return parts.path, int(query["n"])
