"""Directories and files are written atomically, and errors name a full disk."""

import errno
import os
from pathlib import Path

import pytest

from vold.files import DiskFullError, is_disk_full, publish_directory, write_whole


def test_a_directory_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with publish_directory(tmp_path / "out") as scratch:
        (scratch / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_keeps_the_previous_directory(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("step", ["write_bytes", "fsync"])
def test_a_file_is_replaced_atomically_and_kept_when_the_disk_is_full(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def full(*arguments: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match=r"a\.json: cannot be written"):
        patch.setattr(os if step == "fsync" else Path, step, full)
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EFBIG, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), True),
        (RuntimeError("I/O error: Permission denied (os error 13)"), False),
        (DiskFullError("x"), True),
    ],
)
def test_a_full_disk_is_recognized_by_number_and_text_also_as_a_cause(error: Exception, full: bool) -> None:
    outer = RuntimeError("not saved")
    outer.__cause__ = error
    assert is_disk_full(error) is full
    assert is_disk_full(outer) is full
