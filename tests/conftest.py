"""Fixtures that every test may use."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu


def need(module: str, extra: str) -> None:
    """End the test where an optional package is absent."""
    if importlib.util.find_spec(module) is None:
        missing(f"{module} is not installed; `pip install 'vold-bench[{extra}]'`")


def missing(what: str) -> NoReturn:
    """End a test whose means are absent: a failure where CI is set, a skip with its reason elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The directory of the real benchmarks, named by the environment variable VOLD_BENCH_DATA."""
    value = os.environ.get("VOLD_BENCH_DATA", "")
    path = Path(value)
    if not value or not path.is_dir():
        missing(f"VOLD_BENCH_DATA={value!r} names no directory; it must hold mathvision/, mathvista/, ...")
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome from the distribution (playwright: executable_path, --no-sandbox as root)."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing("no Chromium on PATH; install the package `chromium` to run the tests of the page in a browser")
    return found
