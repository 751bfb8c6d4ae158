"""The generated data of the small world as sources: ``smallworld/NAME?n=N``."""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench.errors import ConfigurationError

SMALLWORLD = "smallworld/"


def dataset_path(benchmark: str, source: str, cache: Path) -> Path:
    """The directory under ``cache`` where the problems of ``smallworld/SPLIT?n=N`` lie, written there when absent.

    Raises ConfigurationError naming the mend.
    """
    split, n = smallworld_source(source)
    from bench.smallworld.records import materialise

    try:
        made = materialise(split, n, cache)
    except KeyError as error:
        raise ConfigurationError(f"{source}: {error.args[0]}") from error
    if benchmark not in made:
        raise ConfigurationError(f"{source}: the small world has no {benchmark!r}; choose from {', '.join(made)}")
    return made[benchmark]


def smallworld_source(source: str) -> tuple[str, int]:
    """Name and number of ``smallworld/NAME?n=N``; raises ConfigurationError."""
    parts = urlsplit(source.removeprefix(SMALLWORLD))
    query = dict(parse_qsl(parts.query))
    if set(query) != {"n"} or not query["n"].isdigit() or int(query["n"]) < 1 or not parts.path:
        raise ConfigurationError(f"{source!r} is not of the form smallworld/NAME?n=N")
    return parts.path, int(query["n"])
