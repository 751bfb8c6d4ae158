"""The journal is cut back to the training state when a run resumes."""

import json
from pathlib import Path

from vold.training.journal import Journal, Stopwatch


def test_rows_after_the_training_state_and_half_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    Journal(path, resume_after=2).write({"step": 3, "loss": 1.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1}, {"step": 2}, {"step": 3, "loss": 1.5},
    ]  # fmt: skip


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    Journal(tmp_path / "m.jsonl", 0).write({"step": 1, "loss": float("nan"), "norm": float("inf"), "kl": None})
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "loss": None, "norm": None, "kl": None}


def test_the_stopwatch_gives_seconds_and_rates() -> None:
    watch = Stopwatch()
    with watch.part("rollout"):
        pass
    watch.seconds["rollout"] = 2.0
    assert watch.row(4, {"rollout": 100}) == {"step": 4, "rollout_seconds": 2.0, "rollout_tokens_per_second": 50.0}
