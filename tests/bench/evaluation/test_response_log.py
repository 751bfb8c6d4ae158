"""The response log: lines that count, lines that are moved aside, and a full disk."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from bench.evaluation import response_log as module
from bench.evaluation.response_log import ResponseLog, log_line, move_aside
from bench.records import Response
from vold.files import DiskFullError

EXPECTED = {("mathvision", str(number), sample) for number in range(3) for sample in range(2)}


def response(number: int, sample: int = 0, text: str = "said") -> Response:
    return Response("mathvision", str(number), sample, text, 4, "stop", 9, None)


def test_responses_are_read_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseLog(path, EXPECTED) as log:
        log.add(response(2, 1, "two\nlines, \u2028 and \u00e9"))
        log.add(response(0))
        assert log["mathvision", "2", 1].text == "two\nlines, \u2028 and \u00e9"
    with ResponseLog(path, EXPECTED) as log:
        assert dict(log) == {("mathvision", "2", 1): response(2, 1, "two\nlines, \u2028 and \u00e9"),
                             ("mathvision", "0", 0): response(0)}  # fmt: skip
        assert log.get(("mathvision", "1", 0)) is None


def test_a_repeated_response_does_not_replace_the_first(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseLog(path, EXPECTED) as log:
        log.add(response(0, text="first"))
        log.add(response(0, text="second"))
        assert (len(log), log["mathvision", "0", 0].text) == (1, "first")
    assert len(path.read_bytes().splitlines()) == 1


def test_unusable_lines_are_moved_aside_and_all_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    good = [log_line(response(0)), log_line(response(1, 1))]
    strange = [
        b"{\xff garbage\n",
        b"\x00" * 9 + b"\n",
        b"[]\n",
        b'{"benchmark": "mathvision"}\n',
        log_line(response(0, text="said twice")),
        log_line(response(7)),
        log_line(response(2))[:-1],
    ]
    path.write_bytes(good[0] + b"".join(strange[:-1]) + good[1] + strange[-1])
    with ResponseLog(path, EXPECTED) as log:
        assert set(log) == {("mathvision", "0", 0), ("mathvision", "1", 1)}
        log.add(response(2, text="asked again"))
        assert log["mathvision", "1", 1] == response(1, 1)
    assert path.read_bytes() == b"".join(good) + log_line(response(2, text="asked again"))
    aside = path.with_suffix(".aside.jsonl").read_bytes()
    assert aside == b"".join(line.rstrip(b"\n") + b"\n" for line in strange)


def test_a_response_is_in_the_file_when_add_returns(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    with ResponseLog(path, EXPECTED) as log:
        for number in range(3):
            log.add(response(number))
            assert json.loads(path.read_bytes().splitlines()[-1])["id"] == str(number)


def test_a_full_disk_is_named_and_leaves_complete_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "responses.jsonl"
    write = os.write

    def half(file: int, line: bytes) -> int:
        if len(line) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, line[:50])

    with ResponseLog(path, EXPECTED) as log:
        log.add(response(0))
        with monkeypatch.context() as patch, pytest.raises(DiskFullError, match=r"responses\.jsonl.*the disk is full"):
            patch.setattr(os, "write", half)
            log.add(response(1))
        assert path.read_bytes() == log_line(response(0))
        log.add(response(2))
    assert path.read_bytes() == log_line(response(0)) + log_line(response(2))


def test_old_logs_are_kept_under_the_first_free_name(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    for text in ("a", "b"):
        path.write_text(text)
        move_aside(path)
    move_aside(path)
    assert [(tmp_path / f"responses.jsonl.{number}").read_text() for number in (1, 2)] == ["a", "b"]
    assert not path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"text": None}, {"text": 7}, {"tokens": None}, {"tokens": "4"}, {"tokens": True}, {"finish_reason": "done"},
        {"finish_reason": None}, {"prompt_tokens": "9"}, {"visual_tokens": 1.5}, {"id": 0}, {"benchmark": None},
        {"text": "HTTP 400: bad \ud800"},
    ],
)  # fmt: skip
def test_a_line_with_a_field_of_another_type_or_that_cannot_be_stored_is_moved_aside(
    changes: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "responses.jsonl"
    damaged = json.dumps({**json.loads(log_line(response(0))), **changes}) + "\n"
    path.write_bytes(damaged.encode() + log_line(response(1)))
    with ResponseLog(path, EXPECTED) as log:
        assert set(log) == {("mathvision", "1", 0)}
    assert path.with_suffix(".aside.jsonl").exists()


def test_a_line_of_a_hundred_thousand_brackets_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_bytes(b"[" * 100_000 + b"\n" + log_line(response(1)))
    with ResponseLog(path, EXPECTED) as log:
        assert set(log) == {("mathvision", "1", 0)}


def test_a_failed_sync_after_the_last_response_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = []

    def broken(file: int) -> None:
        failed.append(file)
        raise OSError(errno.EIO, "Input/output error")

    def fill(log: ResponseLog) -> None:
        failed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            log.add(response(0))
            while not failed:
                time.sleep(0.01)

    monkeypatch.setattr(module, "_SYNC_EVERY", 0.01)
    with pytest.raises(OSError, match="Input/output error"), ResponseLog(tmp_path / "a.jsonl", EXPECTED) as log:
        fill(log)
    with pytest.raises(KeyError, match="under way"), ResponseLog(tmp_path / "b.jsonl", EXPECTED) as log:
        fill(log)
        raise KeyError("under way")
