import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.errors import ConfigurationError
from bench.evaluation import running_scores
from bench.evaluation.config import EvalConfig
from bench.evaluation.prompt_record import token_hash
from bench.evaluation.run import evaluate
from vold.execution import Execution

EXECUTION = Execution(device="cpu", threads=1, rollout_batch=8)
PIXELS: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 16}


def _image(path: Path, size: tuple[int, int] = (56, 28)) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path)


@pytest.fixture
def mathvision(tmp_path: Path) -> Path:
    """Five records in MathVision's format."""
    root = tmp_path / "data"
    rows = []
    for number in range(5):
        _image(root / f"images/{number}.png")
        question = f"How many dots?\n<image1> {'again ' * number}"
        rows.append({"id": str(number), "question": question, "options": [], "answer": "3",
                     "image": f"images/{number}.png", "level": 1, "subject": "counting"})  # fmt: skip
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def _run(config: EvalConfig, model: Path, data: Path, run: Path, seed: int = 1) -> Path:
    evaluate(config, model=model, data={"mathvision": data}, run=run, seed=seed, execution=EXECUTION)
    return run / "out"


SAMPLED = EvalConfig(samples=2, temperature=1.0, max_tokens=6, group_size=2, **PIXELS)


def test_every_problem_and_sample_gets_a_verdict_and_the_summary_adds_up(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    out = _run(SAMPLED, random_student, mathvision, tmp_path / "run")

    verdicts = pd.read_parquet(out / "verdicts.parquet")
    assert sorted(zip(verdicts["id"], verdicts["sample"], strict=True)) == [
        (str(i), k) for i in range(5) for k in (0, 1)
    ]
    part = json.loads((out / "summary.json").read_text())["benchmarks"]["mathvision"]
    assert (part["n"], part["expected"], part["synthetic"]) == (10, 10, False)
    assert sum(part["states"].values()) == 10
    assert part["accuracy"] == part["measures"]["avg@2"]["value"] == verdicts["correct"].mean()
    assert set(part["measures"]) == {"avg@2", "pass@2", "maj@2"} and part["baselines"] == {"chance": 0, "majority": 1}
    assert part["prompt"]["parts"][1] == {"type": "image", "path": "0.png"}


def test_every_response_has_the_lengths_of_its_prompt_and_images(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    _image(mathvision / "images/3.png", (112, 56))
    out = _run(SAMPLED, random_student, mathvision, tmp_path / "run")

    responses = pd.read_parquet(out / "responses.parquet")
    patches = {"0": 2 * 1, "1": 2 * 1, "2": 2 * 1, "3": 4 * 2, "4": 2 * 1}  # of 28 x 28 pixels
    assert responses["visual_tokens"].tolist() == [patches[id] for id in responses["id"]]
    prompt = json.loads((out / "summary.json").read_text())["benchmarks"]["mathvision"]["prompt"]
    assert responses["prompt_tokens"].iloc[0] == prompt["tokens"]
    assert prompt["visual_tokens"] == [patches["0"]]
    assert prompt["token_ids_sha256"] == token_hash(_ids(random_student, prompt))


def _ids(model: Path, prompt: dict[str, Any]) -> list[int]:
    """The token ids of a recorded prompt, from the tokenizer alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    (count,) = prompt["visual_tokens"]
    return tokenizer(prompt["rendered"].replace("<|image_pad|>", "<|image_pad|>" * count))["input_ids"]


def test_an_evaluation_cut_at_any_byte_of_its_log_ends_with_the_same_bytes(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    _run(SAMPLED, random_student, mathvision, whole)
    log = (whole / "responses.jsonl").read_bytes()
    for cut in (len(log) - 1, len(log) // 2, 10):
        run = tmp_path / f"cut{cut}"
        shutil.copytree(whole, run)
        shutil.rmtree(run / "out")
        (run / "responses.jsonl").write_bytes(log[:cut])

        _run(SAMPLED, random_student, mathvision, run)

        for name in ("verdicts.parquet", "responses.parquet", "summary.json"):
            assert (run / "out" / name).read_bytes() == (whole / "out" / name).read_bytes(), (cut, name)
        assert (run / "responses.jsonl").read_bytes() == log


@pytest.mark.slow
def test_a_killed_evaluation_resumes_where_it_stopped(random_student: Path, mathvision: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _run(SAMPLED, random_student, mathvision, whole)
    process = multiprocessing.get_context("spawn").Process(
        target=_run_until_killed, args=(random_student, mathvision, killed)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 1 <= len((killed / "responses.jsonl").read_bytes().splitlines()) < 10  # of five problems, two samples each

    _run(SAMPLED, random_student, mathvision, killed)

    for name in ("verdicts.parquet", "responses.parquet", "summary.json"):
        assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()


def _run_until_killed(model: Path, data: Path, run: Path) -> None:
    def kill(done: int, total: int, metrics: dict[str, float]) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)

    evaluate(SAMPLED, model=model, data={"mathvision": data}, run=run, seed=1, execution=EXECUTION, progress=kill)


def test_a_damaged_line_of_the_log_is_moved_aside_and_its_group_requested_again(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _run(SAMPLED, random_student, mathvision, run)
    log = run / "responses.jsonl"
    before = log.read_bytes()
    lines = before.splitlines(keepends=True)
    log.write_bytes(lines[0] + b"{\xff\xfe garbage\n" + b"".join(lines[2:]))

    _run(SAMPLED, random_student, mathvision, run)

    assert sorted(log.read_bytes().splitlines()) == sorted(before.splitlines())
    assert b"garbage" in (run / "responses.aside.jsonl").read_bytes()


def test_an_unreadable_image_is_an_error_of_its_problem_only(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    (mathvision / "images/2.png").write_bytes(b"no image")
    out = _run(EvalConfig(max_tokens=4, **PIXELS), random_student, mathvision, tmp_path / "run")

    responses = pd.read_parquet(out / "responses.parquet").set_index("id")
    assert responses["visual_tokens"].isna().to_dict() == {str(i): i == 2 for i in range(5)}

    verdicts = pd.read_parquet(out / "verdicts.parquet").to_dict("records")
    errors = [(row["id"], row["method"]) for row in verdicts if row["state"] == "error"]
    assert [key for key, _ in errors] == ["2"]
    assert "2.png" in errors[0][1]


def test_blind_leaves_the_images_out_and_needs_none(random_student: Path, mathvision: Path, tmp_path: Path) -> None:
    shutil.rmtree(mathvision / "images")
    out = _run(EvalConfig(max_tokens=4, blind=True), random_student, mathvision, tmp_path / "run")
    part = json.loads((out / "summary.json").read_text())["benchmarks"]["mathvision"]
    assert part["states"]["error"] == 0
    assert all(piece["type"] == "text" for piece in part["prompt"]["parts"])


def test_the_pixel_limit_changes_the_number_of_visual_tokens(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    _image(mathvision / "images/0.png", (280, 280))
    tokens = []
    for limit in (4, 16):
        config = EvalConfig(max_tokens=1, limit=None, min_pixels=784, max_pixels=784 * limit)
        out = _run(config, random_student, mathvision, tmp_path / str(limit))
        prompt = json.loads((out / "summary.json").read_text())["benchmarks"]["mathvision"]["prompt"]
        tokens.append(prompt["tokens"])
    assert tokens[1] - tokens[0] == 16 - 4


def test_a_limit_selects_the_same_problems_for_every_seed(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    config = EvalConfig(max_tokens=1, limit=3, **PIXELS)
    taken = [
        list(
            pd.read_parquet(
                _run(config, random_student, mathvision, tmp_path / str(seed), seed) / "verdicts.parquet"
            ).id
        )
        for seed in (1, 2)
    ]
    assert taken[0] == taken[1]
    assert len(taken[0]) == 3


def test_a_directory_of_another_evaluation_is_refused(random_student: Path, mathvision: Path, tmp_path: Path) -> None:
    config = EvalConfig(max_tokens=1, **PIXELS)
    _run(config, random_student, mathvision, tmp_path / "run")
    with pytest.raises(ConfigurationError, match="another evaluation"):
        _run(config, random_student, mathvision, tmp_path / "run", seed=2)


def test_a_resumed_evaluation_does_not_rewrite_its_claim(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    config = EvalConfig(max_tokens=1, **PIXELS)
    claims = []
    for _ in range(2):
        _run(config, random_student, mathvision, tmp_path / "run")
        status = (tmp_path / "run/evaluation.json").stat()
        claims.append((status.st_ino, status.st_mtime_ns))
    assert claims[0] == claims[1]
    assert not list((tmp_path / "run").glob("*.partial"))


def test_data_without_a_scorable_record_is_refused_by_name(
    random_student: Path, mathvision: Path, tmp_path: Path
) -> None:
    records = mathvision / "test.jsonl"
    rows = [{**json.loads(line), "answer": ""} for line in records.read_text().splitlines()]
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigurationError, match="data: none of the 5 mathvision records of split 'test'"):
        _run(EvalConfig(max_tokens=1, **PIXELS), random_student, mathvision, tmp_path / "run")


def test_a_missing_checkpoint_names_its_path(mathvision: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere: no checkpoint"):
        _run(EvalConfig(), tmp_path / "nowhere", mathvision, tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"benchmarks": ("mathvison",)}, "unknown benchmark 'mathvison'"),
        ({"template": "boxd"}, "unknown prompt template 'boxd'"),
        ({"samples": 4}, "temperature 0"),
        ({"min_pixels": 784}, "together"),
        ({"min_pixels": 784, "max_pixels": 100}, "above max_pixels"),
        ({"topk": 1}, "topk"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EvalConfig.model_validate(settings)


@pytest.mark.real
def test_real_mathvision_testmini_records_are_evaluated_end_to_end(
    random_student: Path, benchmark_data: Path, tmp_path: Path
) -> None:
    config = EvalConfig(splits={"mathvision": "testmini"}, limit=6, max_tokens=8, template="boxed@1", **PIXELS)
    out = _run(config, random_student, benchmark_data / "mathvision", tmp_path / "run")

    verdicts = pd.read_parquet(out / "verdicts.parquet")
    assert len(verdicts) == 6
    assert set(verdicts["state"]) <= {"right", "wrong", "unparsed", "ambiguous", "truncated", "refused"}
    part = json.loads((out / "summary.json").read_text())["benchmarks"]["mathvision"]
    assert (part["split"], part["records"], part["synthetic"]) == ("testmini", 304, False)
    assert part["prompt"]["tokens"] > 20


@pytest.mark.slow
@pytest.mark.real
def test_the_command_line_evaluates_every_record_of_real_mathvision_testmini(
    benchmark_data: Path, tmp_path: Path
) -> None:
    records = benchmark_data / "mathvision" / "testmini.jsonl"
    words = ["eval", "--model", "smallworld/student_a", "--data", f"mathvision={records}", "--max-tokens", "4"]
    words += ["--min-pixels", "256", "--max-pixels", "4096", "--device", "cpu", "--threads", "1"]
    words += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    program = [sys.executable, "-c", "from bench.cli.main import main; main()", *words]
    done = subprocess.run(program, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=500)

    assert done.returncode == 0, done.stderr
    assert "304/304" in done.stdout
    part = json.loads((tmp_path / "out/summary.json").read_text())["benchmarks"]["mathvision"]
    assert (part["records"], part["expected"], part["n"], part["synthetic"]) == (304, 304, 304, False)
    verdicts: Any = pd.read_parquet(tmp_path / "out/verdicts.parquet")
    assert verdicts["id"].nunique() == 304 and not verdicts["synthetic"].any()
    counted = verdicts["state"].value_counts().to_dict()
    assert {state: n for state, n in part["states"].items() if n} == counted
    assert part["states"]["error"] == 0
    # Four tokens are no solution: of what was cut, only an answer that had been declared counts.
    cut = verdicts["finish_reason"] == "length"
    assert cut.sum() > 0 and set(verdicts.loc[cut & verdicts["correct"], "method"]) <= {"boxed", "declared"}
    assert len(pd.read_parquet(tmp_path / "out/responses.parquet")) == 304


def test_a_directory_belongs_to_its_records_and_number_format(mathvision: Path, tmp_path: Path) -> None:
    from bench.engines import Reply
    from perf.stub_engine import StubEngine, StubPool

    model, run, config = tmp_path / "model", tmp_path / "run", EvalConfig(engine="builtin", blind=True)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")

    def go(execution: Execution = EXECUTION) -> None:
        pool = StubPool(lambda: StubEngine(lambda ask, seed: Reply("3", 1, "stop")))
        evaluate(config, model=model, data={"mathvision": mathvision}, run=run, seed=0, execution=execution,
                 engines=pool)  # fmt: skip

    go()
    claim = run / "evaluation.json"
    held = json.loads(claim.read_text())
    claim.write_text(json.dumps({**held, "model": {**held["model"], "name": "0123abcd"}}))
    go()  # the same weights under another name
    with pytest.raises(ConfigurationError, match="holds another evaluation"):
        go(EXECUTION.model_copy(update={"dtype": "bfloat16"}))
    records = mathvision / "test.jsonl"
    records.write_text(records.read_text().replace("dots", "lines"))
    with pytest.raises(ConfigurationError, match=r"holds another evaluation.*records"):
        go()


def test_a_scoring_error_ends_the_run_even_if_the_engine_breaks_in_the_same_pass(
    mathvision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perf.stub_engine import StubEngine, StubPool
    from vold.rollout.base import EngineError

    model, engine = tmp_path / "model", StubEngine()
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")

    def score(*arguments: Any) -> Any:
        raise MemoryError("no room to score")

    def answer(*arguments: Any) -> Any:
        yield next(StubEngine.answer(engine, *arguments))
        raise EngineError("the device fell over")

    monkeypatch.setattr(running_scores, "score", score)
    monkeypatch.setattr(engine, "answer", answer)
    with pytest.raises(MemoryError, match="no room to score") as raised:
        evaluate(
            EvalConfig(engine="builtin", blind=True), model=model, data={"mathvision": mathvision},
            run=tmp_path / "run", seed=0, execution=EXECUTION, engines=StubPool(lambda: engine),
        )  # fmt: skip
    assert isinstance(raised.value.__cause__, EngineError)
    assert len((tmp_path / "run/responses.jsonl").read_text().splitlines()) == 1, "responses so far are kept"


def test_the_engine_continues_while_a_response_is_scored(
    mathvision: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perf.stub_engine import StubEngine, StubPool

    model, engine, all_asked = tmp_path / "model", StubEngine(), threading.Event()
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    calls: list[tuple[int, dict[str, float]]] = []
    score = running_scores.score

    def score_late(*arguments: Any) -> Any:
        assert all_asked.wait(10)
        return score(*arguments)

    def answer(*arguments: Any) -> Any:
        yield from StubEngine.answer(engine, *arguments)
        all_asked.set()

    monkeypatch.setattr(running_scores, "score", score_late)
    monkeypatch.setattr(engine, "answer", answer)
    evaluate(
        EvalConfig(engine="builtin", blind=True), model=model, data={"mathvision": mathvision}, run=tmp_path / "run",
        seed=0, execution=EXECUTION, engines=StubPool(lambda: engine),
        progress=lambda done, total, metrics: calls.append((done, metrics)),
    )  # fmt: skip

    assert [done for done, _ in calls] == list(range(6))
    assert calls[-1][1]["tokens"] == pd.read_parquet(tmp_path / "run/out/responses.parquet")["tokens"].sum()
    assert len(pd.read_parquet(tmp_path / "run/out/verdicts.parquet")) == 5
