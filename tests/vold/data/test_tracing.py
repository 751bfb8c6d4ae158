"""Traces written by a teacher: what is kept, what is dropped, and what survives a kill."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from vold.config import Execution, TracesConfig
from vold.data import tracing
from vold.data.prompts import Prompt, write_jsonl
from vold.data.reading import read_traces
from vold.data.tracing import write_traces

EXECUTION = Execution(threads=1, rollout_batch=8)
CONFIG = TracesConfig(max_new_tokens=40, temperature=1.0)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(f"p{i}", f"[{i}+1]solve", str(i % 10)) for i in range(30)])
    return tmp_path / "prompts.jsonl"


def summary(run: Path) -> dict[str, float]:
    return json.loads((run / "out" / "summary.json").read_text())


def test_unfinished_traces_are_dropped_and_counted(teacher_path: Path, prompts: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_traces(CONFIG, writer=teacher_path, prompts=prompts, run=run, seed=1, execution=EXECUTION)
    traces, counts = read_traces(run / "out" / "traces.jsonl"), summary(run)
    assert 0 < len(traces) < 30, "the tiny teacher must finish some and cut others"
    assert counts["written"] == len(traces) and counts["dropped_long"] == 30 - len(traces)
    assert not any("<|im_end|>" in trace.completion for trace in traces)
    assert [trace.id for trace in traces] == sorted((trace.id for trace in traces), key=lambda name: int(name[1:]))


def test_only_right_traces_are_kept_when_asked(
    teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "reward", lambda text, prompt: float(int(prompt.id[1:]) % 2))
    for keep in ("all", "correct"):
        config = CONFIG.model_copy(update={"keep": keep})
        write_traces(config, writer=teacher_path, prompts=prompts, run=tmp_path / keep, seed=1, execution=EXECUTION)
    kept = read_traces(tmp_path / "correct" / "out" / "traces.jsonl")
    assert kept == [t for t in read_traces(tmp_path / "all" / "out" / "traces.jsonl") if t.correct]
    assert summary(tmp_path / "correct")["dropped_wrong"] > 0


def test_a_killed_run_continues_to_the_same_bytes(teacher_path: Path, prompts: Path, tmp_path: Path) -> None:
    def work(run: Path, kill_after: int | None = None) -> None:
        def progress(done: int, total: int, metrics: dict[str, float]) -> None:
            if kill_after is not None and done >= kill_after:
                os.kill(os.getpid(), signal.SIGKILL)

        arguments = {"writer": teacher_path, "prompts": prompts, "seed": 4, "execution": EXECUTION}
        write_traces(CONFIG, run=run, progress=progress, **arguments)

    work(tmp_path / "whole")
    process = multiprocessing.get_context("fork").Process(target=work, args=(tmp_path / "killed", 16))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    partial = tmp_path / "killed" / "answers.jsonl"
    assert len(partial.read_text().splitlines()) == 16
    with partial.open("a") as file:
        file.write('{"completion": "half a li')
    work(tmp_path / "killed")
    for name in ("traces.jsonl", "summary.json"):
        assert (tmp_path / "killed/out" / name).read_bytes() == (tmp_path / "whole/out" / name).read_bytes()


def test_no_prompts_is_an_error(teacher_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl: no prompts there"):
        write_traces(
            CONFIG, writer=teacher_path, prompts=tmp_path / "empty.jsonl", run=tmp_path / "r", seed=1,
            execution=EXECUTION,
        )  # fmt: skip
