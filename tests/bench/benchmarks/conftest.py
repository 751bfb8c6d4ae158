from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where images of imported tables are written out."""
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
