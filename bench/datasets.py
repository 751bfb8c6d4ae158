"""From what a person writes after ``--data`` to a directory with a benchmark's records."""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bench.errors import ConfigurationError

SMALLWORLD = "smallworld/"


def locate(benchmark: str, source: str, cache: Path) -> Path:
    """The place of a benchmark's records.

    source: a directory (or record file) in the benchmark's own form, or ``smallworld/SPLIT?n=N``, whose problems
    are then written under ``cache``. Raises ConfigurationError naming the mend.
    """
    if not source.startswith(SMALLWORLD):
        path = Path(source).expanduser()
        if not path.exists():
            raise ConfigurationError(f"{source}: no such file or directory; put the files of {benchmark} there")
        return path
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
