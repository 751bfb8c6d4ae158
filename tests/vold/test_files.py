"""Directories appear whole or not at all; a full disk is named."""

import errno
from pathlib import Path

import pytest

from vold.files import DiskFullError, publish_directory


def test_a_directory_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with publish_directory(tmp_path / "out") as scratch:
        (scratch / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    with publish_directory(tmp_path / "out") as scratch:
        (scratch / "a").write_text("old")
    full = pytest.raises(DiskFullError, match="out: cannot be written, the disk is full")
    with full, publish_directory(tmp_path / "out") as scratch:
        (scratch / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_errors_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), publish_directory(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "no")
