"""The cold start: what is learned, from which tokens, and what stays unchanged."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vold.config import OptimizerConfig, SFTConfig
from vold.data.prompts import Trace, write_jsonl
from vold.data.reading import read_traces
from vold.data.samplers import draw
from vold.execution import Execution
from vold.models import load_student
from vold.training.sft import encode_traces, train_sft

FAST = OptimizerConfig(learning_rate=1e-2, warmup_steps=2)
EXECUTION = Execution(threads=1)


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def train(student: Path, traces: Path, run: Path, micro_batch_tokens: int = 4096, **fields: object) -> None:
    config = SFTConfig.model_validate({"steps": 3, "batch_size": 6, "optimizer": FAST, **fields})
    execution = Execution(threads=1, micro_batch_tokens=micro_batch_tokens)
    train_sft(config, student=student, traces=traces, run=run, seed=1, execution=execution)


def test_the_first_loss_is_the_nll_of_completion_and_end_of_turn_only(
    student_path: Path, traces: Path, tmp_path: Path
) -> None:
    train(student_path, traces, tmp_path / "run", steps=1)
    model = load_student(student_path)
    total, tokens = 0.0, 0
    every = read_traces(traces)
    for trace in (every[index] for index in draw(1, "sft", len(every), 6, 0)):
        prompt = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": trace.text}], tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([model.tokenizer(prompt + trace.completion + "<|im_end|>")["input_ids"]])
        start = len(model.tokenizer(prompt)["input_ids"])
        labels = ids.clone()
        labels[:, :start] = -100
        with torch.no_grad():
            loss = model.model(input_ids=ids, labels=labels).loss.item()
        total += loss * (ids.shape[1] - start)
        tokens += ids.shape[1] - start
    (row,) = rows(tmp_path / "run")
    assert row["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert row["tokens"] == tokens
    assert row["learning_rate"] == pytest.approx(5e-3)


def test_traces_are_learned_and_the_checkpoint_reproduces_them(
    student_path: Path, traces: Path, tmp_path: Path
) -> None:
    train(student_path, traces, tmp_path / "run", steps=60, batch_size=20)
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.1 * losses[0]
    trained = load_student(tmp_path / "run" / "out")
    prompt = torch.tensor([trained.encode("[3+1]solve").prompt_ids])
    out = trained.model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=30
    )
    text = trained.tokenizer.decode(out[0, prompt.shape[1] :])
    assert text.endswith("<|im_end|>") and "\\boxed{" in text


def test_micro_batches_do_not_change_the_result_beyond_rounding(
    student_path: Path, traces: Path, tmp_path: Path
) -> None:
    for budget in (1, 100, 4096):
        train(student_path, traces, tmp_path / str(budget), micro_batch_tokens=budget)
    first, *others = (rows(tmp_path / str(budget)) for budget in (1, 100, 4096))
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-3)


def test_frozen_parts_stay_bit_identical_and_the_rest_changes(student_path: Path, traces: Path, tmp_path: Path) -> None:
    train(student_path, traces, tmp_path / "run", freeze=["vision", "embeddings"])
    before = dict(load_student(student_path).model.named_parameters())
    after = dict(load_student(tmp_path / "run" / "out").model.named_parameters())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "visual" not in name and "embed_tokens" not in name}


def test_traces_over_the_length_limit_are_left_out_and_counted(
    student_path: Path, traces: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_student(student_path)
    every = read_traces(traces)
    sequences = encode_traces(model, every, 8192)
    assert caplog.messages == []
    limit = sorted(map(len, sequences))[9]
    short = encode_traces(model, every, limit)
    assert [len(sequence) for sequence in short] == [len(sequence) for sequence in sequences if len(sequence) <= limit]
    assert caplog.messages == [f"{20 - len(short)} of 20 traces are longer than max_length {limit} and are left out"]
    with pytest.raises(ValueError, match="none of 20 traces fits into max_length 5"):
        encode_traces(model, every, 5)


def test_traces_with_images_are_learned_with_them(student_path: Path, tmp_path: Path, image: Image.Image) -> None:
    """Two images with the same question: only a student that sees them can tell the answers apart."""
    for name, turned in (("left", image), ("right", image.transpose(Image.Transpose.ROTATE_180))):
        turned.save(tmp_path / f"{name}.png")
    every = [Trace(name, "which?", name, images=(tmp_path / f"{name}.png",)) for name in ("left", "right")]
    write_jsonl(tmp_path / "traces.jsonl", every)
    train(student_path, tmp_path / "traces.jsonl", tmp_path / "run", steps=30, batch_size=2, freeze=())
    assert rows(tmp_path / "run")[-1]["loss"] < 0.05


def test_a_finished_run_is_not_repeated(student_path: Path, traces: Path, tmp_path: Path) -> None:
    train(student_path, traces, tmp_path / "run")
    before = (tmp_path / "run" / "out" / "model.safetensors").stat().st_mtime_ns
    train(tmp_path / "missing", traces, tmp_path / "run")
    assert (tmp_path / "run" / "out" / "model.safetensors").stat().st_mtime_ns == before
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_progress_is_reported_after_every_step(student_path: Path, traces: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    config = SFTConfig(steps=3, batch_size=4, optimizer=FAST)
    train_sft(
        config, student=student_path, traces=traces, run=tmp_path / "run", seed=1, execution=EXECUTION,
        progress=lambda done, total, metrics: reports.append((done, total)),
    )  # fmt: skip
    assert reports == [(1, 3), (2, 3), (3, 3)]
