"""What a person sees of a training run: the view in a terminal, plain lines in a log."""

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from bench.display import training
from bench.display.training import LiveTrainingView, TrainingView, sparkline, training_view


def metrics(step: int, **fields: float) -> dict[str, float]:
    row = {
        "reward_mean": step / 10, "kl_sampled": 2.0 - step / 10, "loss": 1.0, "step_seconds": 2.0,
        "rollout_seconds": 1.5, "rollout_tokens_per_second": 1234.0, "train_seconds": 0.5,
        "train_tokens_per_second": 5678.0, "peak_memory_bytes": 3.0 * 2**30, "warn_kl": 0,
    }  # fmt: skip
    return row | fields


def drawn(view: LiveTrainingView, width: int = 80) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(view.render())
    return console.export_text()


def line(text: str, label: str) -> list[str]:
    return next(row.split() for row in text.splitlines() if row.startswith(label))


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 5, ""),
        ([3.0], 5, "▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([4.0, 4.001, 4.0], 8, "▁▁▁"),
        ([-1.0, -1.0], 8, "▁▁"),
    ],
)
def test_a_sparkline_spans_low_to_high_and_shows_no_trend_where_there_is_none(
    values: list[float], width: int, expected: str
) -> None:
    assert sparkline(values, width) == expected


def test_a_long_course_fits_into_the_width() -> None:
    assert len(sparkline([float(i) for i in range(1001)], 26)) == 26


def test_the_view_shows_trends_stage_times_and_the_time_left(tmp_path: Path) -> None:
    view = LiveTrainingView(Console(file=io.StringIO()), "rl", tmp_path / "my_run")
    for step in (1, 2, 3, 4):
        view(step, 10, metrics(step))
    text = drawn(view)
    assert "rl my_run" in text and "step 4/10" in text and "2 s/step" in text and "0:12 left" in text
    assert line(text, "reward") == ["reward", "0.1", "0.1", "0.4", "0.4", "▁▃▆█"]
    assert line(text, "KL, nats/token")[2:] == ["1.9", "1.6", "1.9", "1.6", "█▆▃▁"]
    assert line(text, "rollout")[:3] == ["rollout", "1.5", "1,234"]
    assert line(text, "peak memory")[2:] == ["3.00", "GiB"]
    assert "warnings" not in text and "entropy" not in text, "what is not measured is not shown"
    assert all(len(row) <= 80 for row in text.splitlines())


def test_a_stage_that_does_not_run_in_every_step_counts_as_often_as_it_runs(tmp_path: Path) -> None:
    view = LiveTrainingView(Console(file=io.StringIO()), "sft", tmp_path)
    for step in (1, 2, 3, 4):
        view(step, 8, metrics(step, **({"checkpoint_seconds": 4.0} if step == 2 else {})))
    assert line(drawn(view), "checkpoint")[1] == "1"
    assert view.seconds_per_step() == 3.0 and view.seconds_left() == pytest.approx(12, abs=0.5)


def test_alarms_of_the_last_step_are_named(tmp_path: Path) -> None:
    view = LiveTrainingView(Console(file=io.StringIO()), "rl", tmp_path)
    view(1, 3, metrics(1, warn_kl=1, skipped=1))
    assert "warnings in step 1: kl, skipped" in drawn(view)
    view(2, 3, metrics(2))
    assert "warnings" not in drawn(view)


def test_a_resumed_run_shows_its_whole_course(tmp_path: Path) -> None:
    for name, rows in (("metrics", [{"reward_mean": 0.9}] * 4), ("timing", [{"step_seconds": 2.0}] * 4)):
        text = "".join(json.dumps({"step": step, **row}) + "\n" for step, row in enumerate(rows, 1))
        (tmp_path / f"{name}.jsonl").write_text(text)
    view = LiveTrainingView(Console(file=io.StringIO()), "rl", tmp_path)
    view(3, 10, metrics(3))  # the checkpoint was at 2: rows 3 and 4 are of the past
    assert view.history["reward_mean"] == {1: 0.9, 2: 0.9, 3: 0.3}


def test_plain_lines_come_at_intervals_and_warnings_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), record=True, width=400)
    now = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    with TrainingView(console, "rl", tmp_path / "my_run") as view:
        for step in range(1, 8):
            now[0] += 10
            view(step, 8, metrics(step))
        logging.getLogger("vold.training.health").warning("step 7: the entropy collapsed")
        now[0] += 1
        view(8, 8, metrics(8, warn_entropy=1))
    logging.getLogger("vold.training.health").warning("after the end")
    lines = [row.split(maxsplit=1) for row in console.export_text().splitlines()]
    assert [(stamp, text.split("  ")[0]) for stamp, text in lines] == [
        ("0:00", "rl my_run: loading models and data, then the first step"),
        ("0:10", "step 1/8"), ("0:40", "step 4/8"), ("1:10", "step 7/8"),
        ("1:10", "warning: step 7: the entropy collapsed"), ("1:11", "step 8/8"),
    ]  # fmt: skip
    assert lines[-1][1] == "step 8/8  reward 0.8  KL 1.2  loss 1  2 s per step  0:00 left  ! entropy"


def test_the_live_view_is_for_terminals_alone(tmp_path: Path) -> None:
    assert type(training_view(Console(file=io.StringIO()), "rl", tmp_path)) is TrainingView
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    with training_view(terminal, "rl", tmp_path / "my_run") as view:
        assert isinstance(view, LiveTrainingView)
        view(1, 2, metrics(1))
        logging.getLogger("vold").warning("step 1: something")
        view(2, 2, metrics(2))
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "loading models and data" in shown and "warning: step 1: something" in shown and "step 2/2" in shown


def test_what_has_no_steps_goes_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    view = LiveTrainingView(Console(file=io.StringIO()), "traces", tmp_path / "mine")
    for done in (64, 128):
        now[0] += 32
        view(done, 256, {"correct": 0.75, "tokens": 40.0})
    text = drawn(view)
    assert "traces mine" in text and "trace 128/256" in text and "0.5 s/trace" in text and "1:04 left" in text
    assert line(text, "correct share")[2:6] == ["0.75"] * 4 and "s/step" not in text
