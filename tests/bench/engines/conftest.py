"""Fixtures of the tests of the engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.engine_requests import Asker


@pytest.fixture
def ask_stub(tmp_path: Path) -> Iterator[Asker]:
    asker = Asker(tmp_path / "endpoints")
    yield asker
    for engine in asker.engines:
        engine.close()
