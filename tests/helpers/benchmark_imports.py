"""What the tests of imports share: an import in one call, two plain records, the command line's answer."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.benchmarks.importing import import_split
from bench.benchmarks.registry import BENCHMARKS
from bench.cli.main import app, fail
from tests.helpers.benchmark_sources import Record, image_bytes


def bring(benchmark: str, source: Path | str, split: str, out: Path, **how: bool) -> dict[str, Any]:
    partial, any_version = how.get("partial", True), how.get("any_version", True)
    return import_split(BENCHMARKS[benchmark], str(source), split, out, partial=partial, any_version=any_version)


def two_plain_records() -> tuple[dict[str, Record], dict[str, list[bytes]]]:
    records = {
        str(key): {"id": str(key), "question": f"How many? {key}", "options": [], "answer": "4", "subject": "counting",
                   "image": f"images/{key}.png"}
        for key in range(2)
    }  # fmt: skip
    return records, {key: [image_bytes(int(key), (200, 200))] for key in records}


def run(*arguments: str) -> Any:
    """The exit code as the console script gives it, through its own reporting of errors."""
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        with pytest.raises(SystemExit) as ended:
            fail(done.exception)
        return ended.value.code, str(done.exception)
    return done.exit_code, done.output
