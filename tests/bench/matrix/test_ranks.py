"""The launcher of several processes: who is told what, without starting the heavy libraries."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.train import sft
from bench.errors import ErrorClass, StageError
from bench.matrix.ranks import launches, run_on_ranks
from vold.config import Execution

HERE = "tests.bench.matrix.test_ranks"


def report_place(out: Path, progress: Callable) -> None:
    place = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")]
    (out / f"place-{place[0]}").write_text(" ".join(place))
    print(f"output of {place[0]}", flush=True)
    progress(int(place[0]), 9, {})


def end_one_while_the_other_complains(progress: Callable) -> None:
    """Rank 1 complains, as over a lost connection, while rank 0 is dying."""
    if os.environ["RANK"] == "0":
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConnectionError("closed by peer")


@pytest.mark.slow
def test_every_process_knows_its_place_and_only_the_first_is_heard(tmp_path: Path) -> None:
    heard: list[tuple[object, ...]] = []
    run_on_ranks(2, f"{HERE}:report_place", (tmp_path,), tmp_path, lambda *values: heard.append(values))
    assert [(tmp_path / f"place-{rank}").read_text() for rank in (0, 1)] == ["0 0 2", "1 1 2"]
    assert heard == [(0, 9, {})]
    assert (tmp_path / "rank-1.log").read_text() == "output of 1\n"


@pytest.mark.slow
def test_a_killed_process_is_the_cause_and_not_the_complaint_of_another(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"rank 0 was ended by signal 9 \(SIGKILL\)") as caught:
        run_on_ranks(2, f"{HERE}:end_one_while_the_other_complains", (), tmp_path, lambda *values: None)
    assert caught.value.error_class is ErrorClass.INFRASTRUCTURE


def test_a_process_that_was_started_as_one_of_several_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launches(Execution(processes=2)) and not launches(Execution())
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launches(Execution(processes=2))


@pytest.mark.parametrize(("option", "expected"), [(None, 3), (2, 2)])
def test_the_option_overrides_the_files_number_of_processes(
    option: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr("bench.matrix.ranks.run_on_ranks", lambda *values: asked.append(values))
    file = tmp_path / "train.yaml"
    file.write_text(
        "{schema: vold-bench/train@1, student: s, traces: t.jsonl, run: r, execution: {processes: 3, device: cpu}}"
    )
    sft(file, option)
    processes, work, arguments, logs, _ = asked[0]
    assert (processes, work, arguments, logs) == (
        expected, "bench.cli.train:train_rank", ("sft", file), (tmp_path / "r").resolve(),
    )  # fmt: skip
