"""RL on prompts with images: the student learns from them, and a policy decides what a blind teacher reads."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from vold.config import OptimizerConfig, RLConfig, SFTConfig
from vold.data.prompts import Prompt, write_jsonl
from vold.execution import Execution
from vold.teacher import Teacher
from vold.training import rollouts, validation
from vold.training.rl import train_rl
from vold.training.sft import train_sft

EXECUTION = Execution(threads=1)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Prompts with text only and prompts with images of several sizes."""
    random = np.random.default_rng(0)
    prompts = [Prompt(f"t{i}", f"[{i}+1]solve", str(i)) for i in range(3)]
    for i in range(3):
        pixels = random.integers(0, 255, (24 + 16 * i, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        prompts.append(Prompt(f"p{i}", "<image>solve", str(i), (), (tmp_path / f"{i}.png",), f"[{i}+1]"))
    write_jsonl(tmp_path / "mixed.jsonl", prompts)
    return tmp_path / "mixed.jsonl"


def train(
    prompts: Path, student: Path, teacher: Path | None, run: Path, held_out: Path | None = None, **fields: object
) -> list[dict[str, float]]:
    small = {"steps": 2, "prompts_per_step": 6, "group_size": 4, "max_new_tokens": 12}
    config = RLConfig.model_validate(small | {"optimizer": {"learning_rate": 3e-3}} | fields)
    train_rl(
        config, student=student, teacher=teacher, prompts=prompts, validation=held_out, run=run, seed=1,
        execution=EXECUTION,
    )  # fmt: skip
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def count_of_a(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    return [float("a" in response) for response in responses]


def test_grpo_learns_from_images_without_a_teacher(
    student_path: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "rewards", count_of_a)
    rows = train(mixed, student_path, None, tmp_path / "run", steps=8, group_size=8)
    assert rows[-1]["reward_mean"] > rows[0]["reward_mean"]
    learned = [row for row in rows if row["reward_zero_variance_share"] < 1]
    assert learned and all(row["mismatch_q01"] is None for row in rows if row not in learned)
    for row in learned:
        # If engine and trainer saw other images or positions, their log-probabilities would differ.
        assert row["mismatch_q01"] == pytest.approx(1, abs=1e-3) and row["mismatch_q99"] == pytest.approx(1, abs=1e-3)
    before, after = load_file(student_path / "model.safetensors"), load_file(tmp_path / "run/out/model.safetensors")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert any("visual.merger" in name for name in moved)
    assert not any("visual.blocks" in name for name in moved)


def test_images_are_refused_without_a_policy_for_a_teacher_that_sees_none(
    student_path: Path, teacher_path: Path, mixed: Path, tmp_path: Path
) -> None:
    for distill in ({"weight": 0.1}, {"weight": 0, "monitor_every": 5}):
        with pytest.raises(ValueError, match=r"3 of 6 prompts have images .*'p0'.* set distill\.images to skip"):
            train(mixed, student_path, teacher_path, tmp_path / "run", distill=distill)
    rows = [json.loads(line) for line in mixed.read_text().splitlines()]
    mixed.write_text("".join(json.dumps(row | {"caption": ""}) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"3 of 3 prompts with images have no caption \('p0', 'p1', 'p2'\)"):
        train(mixed, student_path, teacher_path, tmp_path / "run", distill={"weight": 0.1, "images": "caption"})
    assert not (tmp_path / "run").exists()


def test_skipping_gives_only_texts_a_teacher_term(
    student_path: Path, teacher_path: Path, mixed: Path, tmp_path: Path
) -> None:
    distill = {"weight": 1.0, "mask": "all", "images": "skip"}
    rows = train(mixed, student_path, teacher_path, tmp_path / "both", distill=distill, reward_weight=0)
    assert all(row["unread_share"] == 0.5 and row["kl_exact"] > 0 and row["gradient_norm"] > 0 for row in rows)
    only_images = mixed.with_name("only_images.jsonl")
    only_images.write_text("".join(line for line in mixed.read_text().splitlines(keepends=True) if '"p' in line))
    rows = train(only_images, student_path, teacher_path, tmp_path / "only_images", distill=distill, reward_weight=0)
    for row in rows:
        assert row["unread_share"] == 1 and row["gradient_norm"] == 0 == row["loss_distill"]
        assert row["kl_exact"] is None and row["kl_sampled"] is None and row["nonfinite_teacher_logprobs"] == 0


def test_the_teacher_reads_the_captions(
    student_path: Path, teacher_path: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts_read: set[str | None] = set()
    score = Teacher.score

    def watched(self: Teacher, texts: Sequence[str | None], completions: Sequence[tuple[int, ...]]):  # type: ignore[no-untyped-def]
        texts_read.update(texts)
        return score(self, texts, completions)

    monkeypatch.setattr(Teacher, "score", watched)
    distill = {"weight": 0.5, "images": "caption"}
    rows = train(mixed, student_path, teacher_path, tmp_path / "run", distill=distill)
    assert texts_read == {f"[{i}+1]solve" for i in range(3)}
    assert all(row["unread_share"] == 0 and row["kl_exact"] > 0 for row in rows)


def test_validation_images_are_answered_and_change_nothing(
    student_path: Path, mixed: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "rewards", count_of_a)
    batches: list[tuple[str, ...]] = []

    def watched(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        batches.append(tuple(prompt.id for prompt in prompts))
        return [float(prompt.id in ("t0", "p0", "p1")) for prompt in prompts]

    monkeypatch.setattr(validation, "rewards", watched)
    plain = train(prompts, student_path, None, tmp_path / "plain", steps=4)
    assert all(row["validation_reward"] is None for row in plain) and not batches
    rows = train(prompts, student_path, None, tmp_path / "watched", steps=4, validate_every=2, held_out=mixed)
    assert [row.pop("validation_reward") for row in rows] == [0.5, None, 0.5, 0.5]
    assert batches == [("t0", "t1", "t2", "p0", "p1", "p2")] * 3
    assert rows == [{k: v for k, v in row.items() if k != "validation_reward"} for row in plain]
    weights = [load_file(tmp_path / name / "out" / "model.safetensors") for name in ("plain", "watched")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_sft_imitates_answers_to_images(student_path: Path, mixed: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in mixed.read_text().splitlines()]
    traces = [row | {"completion": "\\\\boxed{" + row["answer"] + "}"} for row in rows]
    (tmp_path / "traces.jsonl").write_text("".join(json.dumps(trace) + "\n" for trace in traces))
    config = SFTConfig(steps=6, batch_size=6, optimizer=OptimizerConfig(learning_rate=1e-2))
    run = tmp_path / "sft"
    train_sft(config, student=student_path, traces=tmp_path / "traces.jsonl", run=run, seed=1, execution=EXECUTION)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    before, after = load_file(student_path / "model.safetensors"), load_file(run / "out" / "model.safetensors")
    assert any("visual.merger" in name and not before[name].equal(after[name]) for name in before)


def test_a_prompt_without_an_answer_is_refused(student_path: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "p.jsonl", [Prompt("a", "b", "1"), Prompt("c", "d", " ")])
    with pytest.raises(ValueError, match=r"1 of 2 prompts have no reference answer to reward \(the first is 'c'\)"):
        train(tmp_path / "p.jsonl", student_path, None, tmp_path / "run")


def test_an_unreadable_image_is_named_with_its_prompt(student_path: Path, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"prompt 'p1': .*1\.png: unreadable image"):
        train(mixed, student_path, None, tmp_path / "run")
