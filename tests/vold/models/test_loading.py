"""Loading and saving checkpoints. Errors say what is wrong and how to fix it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from vold.models import LanguageModel, ModelError, Student, freeze, load_student, load_teacher, save_checkpoint


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such checkpoint directory"):
        load_student(tmp_path / "nowhere")


def test_a_student_that_is_not_a_vision_language_model_is_refused(teacher_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be a vision-language model .* model_type 'qwen3'"):
        load_student(teacher_path)


def test_a_teacher_that_is_a_vision_language_model_is_refused(student_path: Path) -> None:
    with pytest.raises(ModelError, match="a teacher is a text-only causal model"):
        load_teacher(student_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"no config\.json"),
        ("model.safetensors", r"no \*\.safetensors"),
        ("preprocessor_config.json", r"no preprocessor_config\.json"),
    ],
)
def test_a_checkpoint_without_one_of_its_files_is_refused(
    missing: str, message: str, student_path: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(student_path, tmp_path / "copy"))
    (copy / missing).unlink()
    (copy / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(ModelError, match=message):
        load_student(copy)


def test_code_that_comes_with_a_checkpoint_is_never_run(student_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(student_path, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "evil.Config"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match=r"config\.json"):
        load_student(copy)
    assert not (tmp_path / "ran").exists()


def test_a_saved_student_loads_with_auto_classes_and_equal_weights(student: Student, tmp_path: Path) -> None:
    save_checkpoint(student, tmp_path / "out")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    theirs: dict[str, torch.Tensor] = dict(loaded.named_parameters())
    for name, parameter in student.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    assert loaded.lm_head.weight.data_ptr() == theirs["model.language_model.embed_tokens.weight"].data_ptr()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == student.tokenizer.chat_template
    assert load_student(tmp_path / "out").image_processor.size == student.image_processor.size
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {file.name for file in student.path.iterdir()}


def test_a_saved_teacher_loads_with_auto_classes(teacher: LanguageModel, tmp_path: Path) -> None:
    save_checkpoint(teacher, tmp_path / "out")
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "out").lm_head.weight, teacher.head)


def test_a_save_that_fails_leaves_no_directory(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(directory: Path, **kwargs: object) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("stopped")

    monkeypatch.setattr(student.model, "save_pretrained", broken)
    with pytest.raises(RuntimeError, match="stopped"):
        save_checkpoint(student, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_teachers_are_frozen(teacher: LanguageModel) -> None:
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


@pytest.mark.parametrize("parts", [(), ("vision",), ("vision", "merger"), ("embeddings",)])
def test_freezing_switches_off_exactly_the_named_parts(
    parts: tuple[str, ...], build_student: Callable[..., Path], tmp_path: Path
) -> None:
    model = load_student(build_student(tmp_path / "student"))
    freeze(model, ("vision", "merger", "embeddings"))
    freeze(model, parts)  # type: ignore[arg-type]
    for name, parameter in model.model.named_parameters():
        part = "other"
        if name.startswith("model.visual"):
            part = "merger" if name.startswith("model.visual.merger") else "vision"
        elif "embed_tokens" in name or "lm_head" in name:
            part = "embeddings"
        assert parameter.requires_grad is (part not in parts), name


def test_padding_rows_and_placeholders_are_banned_and_the_end_of_turn_stops(student: Student) -> None:
    vocabulary = student.tokenizer.get_vocab()
    banned = set(student.banned_ids)
    assert {vocabulary["<|image_pad|>"], vocabulary["<|video_pad|>"]} <= banned
    assert banned >= set(range(len(vocabulary), student.head.shape[0]))
    assert vocabulary["<|im_end|>"] in student.stop_ids
    assert not banned & set(student.stop_ids)


def test_the_recipe_of_the_base_is_not_copied_to_a_trained_checkpoint(
    build_student: Callable[..., Path], tmp_path: Path
) -> None:
    base = build_student(tmp_path / "base")
    (base / "recipe.json").write_text('{"skills": {}}')
    save_checkpoint(load_student(base), tmp_path / "out")
    names = [{file.name for file in path.iterdir()} for path in (base, tmp_path / "out")]
    assert names[0] - names[1] == {"recipe.json"}
