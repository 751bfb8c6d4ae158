from pathlib import Path

import pytest

from bench.matrix import stages
from bench.store import Store
from tests.helpers.fake_matrix import fake_kinds, make_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Store]:
    """A matrix file with quick stand-ins for its stages, and an empty store."""
    for name, kind in fake_kinds().items():
        monkeypatch.setitem(stages.KINDS, name, kind)
    (tmp_path / "control").mkdir()
    return make_world(tmp_path / "ablations"), Store(tmp_path / "store")
