"""The generated data of the small world as sources: ``smallworld/NAME?n=N``."""

import hashlib
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench.benchmarks.base import dataset_title
from bench.errors import ConfigurationError

SMALLWORLD = "smallworld/"


def dataset_path(benchmark: str, source: str, cache: Path) -> Path:
    """The directory under ``cache`` where the problems of ``smallworld/SPLIT?n=N`` lie, written there when absent.

    Raises ConfigurationError naming the mend.
    """
    split, n = parse_source(source)
    from bench.smallworld.records import materialise

    try:
        made = materialise(split, n, cache)
    except KeyError as error:
        raise ConfigurationError(f"{source}: {error.args[0]}") from error
    if benchmark not in made:
        raise ConfigurationError(f"{source}: the small world has no {benchmark!r}; choose from {', '.join(made)}")
    return made[benchmark]


def source_title(benchmark: str, source: str) -> str:
    """What a source's problems are called: the small world's by their own name, others by the benchmark's."""
    if not source.startswith(SMALLWORLD):
        return benchmark
    from bench.smallworld.records import DATASETS

    return next(
        (dataset_title(dataset.name, True) for dataset in DATASETS if dataset.benchmark == benchmark), benchmark
    )


def prompts_path(source: str, cache: Path) -> Path:
    """The file under ``cache`` that holds the prompts of ``smallworld/SET?n=N``, written there when absent.

    Raises ConfigurationError naming the mend.
    """
    name, n = parse_source(source)
    path = cache / f"prompts-{name}-{n}.jsonl"
    if not path.exists():
        from bench.smallworld.prompts import materialise

        path.parent.mkdir(parents=True, exist_ok=True)
        work = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            materialise(name, n, work)
        except KeyError as error:
            raise ConfigurationError(f"{source}: {error.args[0]}") from error
        work.replace(path)
    return path


def generated_data_path(root: Path) -> Path:
    """A place under ``root`` for the data of this state of the generator's code.

    Data made by other code is made again, and is the same bytes or has another identity.
    """
    import bench.smallworld

    code = sorted(Path(bench.smallworld.__file__).parent.glob("*.py"))
    return root / hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]


def parse_source(source: str) -> tuple[str, int]:
    """Name and number of ``smallworld/NAME?n=N``; raises ConfigurationError."""
    parts = urlsplit(source.removeprefix(SMALLWORLD))
    query = dict(parse_qsl(parts.query))
    if set(query) != {"n"} or not query["n"].isdigit() or int(query["n"]) < 1 or not parts.path:
        raise ConfigurationError(f"{source!r} is not of the form smallworld/NAME?n=N")
    return parts.path, int(query["n"])
