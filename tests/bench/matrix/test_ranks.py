"""Training on several processes: how ranks are started and heard, without the heavy libraries."""

import os
import signal
import time
from pathlib import Path

import pytest

from bench.cli.train import sft
from bench.errors import ErrorClass, StageError
from bench.matrix.ranks import distribute, run_on_ranks
from vold.execution import Execution
from vold.training.progress import Progress, silent

HERE = "tests.bench.matrix.test_ranks"


def report_rank(out: Path, progress: Progress) -> None:
    rank, *others = (os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    (out / f"rank-{rank}").write_text(" ".join([rank, *others]))
    print(f"output of {rank}", flush=True)
    progress(int(rank), 9, {})


def kill_one_while_the_other_fails(progress: Progress) -> None:
    """Rank 1 fails as if it had lost its connection, while rank 0 is about to be killed."""
    if os.environ["RANK"] == "0":
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConnectionError("closed by peer")


@pytest.mark.slow
def test_every_rank_has_its_number_and_only_rank_0_reports_progress(tmp_path: Path) -> None:
    reports: list[tuple[object, ...]] = []
    run_on_ranks(2, f"{HERE}:report_rank", (tmp_path,), tmp_path, lambda *values: reports.append(values))
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["0 0 2", "1 1 2"]
    assert reports == [(0, 9, {})]
    assert (tmp_path / "rank-1.log").read_text() == "output of 1\n"


@pytest.mark.slow
def test_a_killed_rank_is_the_cause_and_not_the_error_of_another(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"rank 0 was ended by signal 9 \(SIGKILL\)") as caught:
        run_on_ranks(2, f"{HERE}:kill_one_while_the_other_fails", (), tmp_path, silent)
    assert caught.value.error_class is ErrorClass.INFRASTRUCTURE


def test_only_a_process_that_is_not_yet_a_rank_starts_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr("bench.matrix.ranks.run_on_ranks", lambda processes, *_: started.append(processes))

    def distributed(processes: int) -> bool:
        return distribute(Execution(processes=processes), "module:work", (), tmp_path, silent)

    assert distributed(2) and not distributed(1) and started == [2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not distributed(2) and started == [2]


@pytest.mark.parametrize(("option", "expected"), [(None, 3), (2, 2)])
def test_the_option_overrides_the_files_number_of_processes(
    option: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("bench.matrix.ranks.run_on_ranks", lambda *values: calls.append(values))
    file = tmp_path / "train.yaml"
    file.write_text(
        "{schema: vold-bench/train@1, student: s, traces: t.jsonl, run: r, execution: {processes: 3, device: cpu}}"
    )
    sft(file, option)
    processes, work, arguments, logs, _ = calls[0]
    assert (processes, work, arguments, logs) == (
        expected, "bench.cli.train:train_rank", ("sft", file), (tmp_path / "r").resolve(),
    )  # fmt: skip
