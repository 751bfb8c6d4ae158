"""Every seeded fault is found under its id, with its place and its fix. A healthy run has none of them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.vold.preflight.conftest import World
from vold import rewards
from vold.data.prompts import chat
from vold.data.reading import read_prompts
from vold.execution import Execution
from vold.findings import Finding, Level
from vold.models import Student
from vold.models.checkpoint import Checkpoint
from vold.preflight import disk, settings
from vold.preflight.devices import Device
from vold.preflight.lengths import measure_lengths
from vold.preflight.run import run_preflight


def findings_of(world: World) -> list[Finding]:
    return run_preflight([world.job()]).findings


def template(path: Path, text: str) -> None:
    (path / "chat_template.jinja").write_text(text)


def replaced(path: Path, old: str, new: str) -> None:
    file = path / "chat_template.jinja"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def swap_ids(world: World) -> None:
    """Swap the ids of two ordinary tokens of the teacher."""
    file = world.teacher / "tokenizer.json"
    text = file.read_text()
    assert '"a": 64' in text and '"b": 65' in text
    file.write_text(text.replace('"a": 64', '"a": 0').replace('"b": 65', '"b": 64').replace('"a": 0', '"a": 65'))


def truncate(world: World) -> None:
    file = world.student / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def garbage_header(world: World) -> None:
    (world.teacher / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"[" * 20)


def missing_shard(world: World) -> None:
    index = '{"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (world.teacher / "model.safetensors.index.json").write_text(index)


def wide_heads(world: World) -> None:
    """Two attention heads of size 18, for which vLLM has no kernel."""
    world.edit(world.student / "config.json", text_config={"hidden_size": 36})


def no_special(path: Path, name: str) -> None:
    """Remove a special token from a tokenizer by renaming it."""
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (path / file).read_text()
        (path / file).write_text(text.replace(name, "<|other|>"))


def image_blind(world: World) -> None:
    replaced(world.student, "<|image_pad|>", "")


def traces_too_long(world: World) -> None:
    world.use_traces("1" * 20, "1" * 20, "1" * 400)


def thinking_traces(world: World) -> None:
    world.use_traces("<think>1 and 1</think> 2", "2")


def pictured(world: World, content: bytes | None = None, **row: Any) -> None:
    """One prompt with an image of 64 x 48."""
    file = world.root / "shape.png"
    Image.new("RGB", (64, 48), "red").save(file)
    if content is not None:
        file.write_bytes(content)
    world.rows[3].update(images=["shape.png"], **row)


RUN, STUDENT, TEACHER, DATA = "run.yaml", "student", "teacher", "data.jsonl"

# name: (how to spoil the run, id of the finding, where it must point, words of the fix)
Spoil = Callable[[World], Any]
FAULTS: dict[str, tuple[Spoil, str, str, str]] = {
    "ids swapped": (swap_ids, "tokenizers.vocabulary", TEACHER, "tokenizer family"),
    "teacher too narrow": (
        lambda w: w.edit(w.teacher / "config.json", vocab_size=100), "tokenizers.teacher_rows", "teacher/config.json",
        "tokenizer family",
    ),
    "student too narrow": (
        lambda w: w.edit(w.student / "config.json", text_config={"vocab_size": 100}), "tokenizers.rows", STUDENT,
        "one source",
    ),
    "weights of another model": (
        lambda w: w.edit(w.student / "config.json", text_config={"vocab_size": 310}),
        "checkpoints.weights_of_another_model", "model.safetensors", "one source",
    ),
    "generation stops elsewhere": (
        lambda w: w.edit(w.student / "generation_config.json", eos_token_id=3), "tokenizers.eos_differs",
        "generation_config.json", "eos_token_id",
    ),
    "pad is end of turn": (
        lambda w: w.edit(w.student / "tokenizer_config.json", pad_token="<|im_end|>"), "tokenizers.pad_is_eos",
        "tokenizer_config.json", "pad_token",
    ),
    "no pad token": (
        lambda w: w.edit(w.teacher / "tokenizer_config.json", pad_token=None), "tokenizers.no_pad",
        "teacher/tokenizer_config.json", "pad_token",
    ),
    "no template": (
        lambda w: (w.teacher / "chat_template.jinja").unlink(), "templates.none", TEACHER, "chat_template.jinja",
    ),
    "template fails": (
        lambda w: template(w.student, "{{ raise_exception('no') }}"), "templates.fails", "chat_template.jinja",
        "repair",
    ),
    "only the teacher thinks": (
        lambda w: replaced(w.teacher, "assistant\n{%", "assistant\n<think>\n{%"), "templates.opening_differs",
        "teacher/chat_template.jinja", "remove <think>",
    ),
    "user left out": (
        lambda w: template(w.student, "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"),
        "templates.user_ignored", "student/chat_template.jinja", "template of the release",
    ),
    "system left out": (
        lambda w: replaced(w.teacher, "in messages %}", "in messages if message.role != 'system' %}"),
        "templates.system_ignored", "teacher/chat_template.jinja", "into the user's turn",
    ),
    "assistant's turn not opened": (
        lambda w: replaced(w.student, "<|im_start|>assistant\n", ""), "templates.no_opening", STUDENT,
        "add_generation_prompt",
    ),
    "turn closed by another token": (
        lambda w: replaced(w.student, "<|im_end|>", "<|endoftext|>"), "templates.end_of_turn", STUDENT, "eos_token",
    ),
    "placeholder of another id": (
        lambda w: w.edit(w.student / "config.json", image_token_id=7), "images.placeholder", "student/config.json",
        "image_token_id",
    ),
    "config that builds no model": (
        lambda w: w.edit(w.student / "config.json", vision_config={"num_heads": 0}), "checkpoints.unbuildable",
        STUDENT, "config of the release",
    ),
    "no placeholder token": (
        lambda w: no_special(w.student, "<|image_pad|>"), "images.placeholder", STUDENT, "one source",
    ),
    "template blind for images": (image_blind, "images.template", "chat_template.jinja", "<|image_pad|> once"),
    "merge size differs": (
        lambda w: w.edit(w.student / "preprocessor_config.json", merge_size=1), "images.grid",
        "preprocessor_config.json", "set merge_size to 2",
    ),
    "patch size differs": (
        lambda w: w.edit(w.student / "preprocessor_config.json", patch_size=14), "images.grid",
        "preprocessor_config.json", "set patch_size to 8",
    ),
    "tower of another width": (
        lambda w: w.edit(w.student / "config.json", vision_config={"out_hidden_size": 32}), "images.width",
        "student/config.json", "out_hidden_size",
    ),
    "student without a vision tower": (
        lambda w: w.changes.update(student=w.teacher), "checkpoints.student_reads_text_only", "config.json",
        "set `student` to a vision-language model",
    ),
    "teacher with a vision tower": (
        lambda w: w.changes.update(teacher=w.student), "checkpoints.teacher_reads_images", "config.json",
        "text-only model",
    ),
    "no image processor": (
        lambda w: (w.student / "preprocessor_config.json").unlink(), "checkpoints.no_processor", STUDENT, "copy",
    ),
    "no tokenizer": (
        lambda w: [(w.teacher / f).unlink() for f in ("tokenizer.json", "tokenizer_config.json")],
        "checkpoints.no_tokenizer", TEACHER, "tokenizer.json",
    ),
    "config unreadable": (
        lambda w: (w.teacher / "config.json").write_text("{"), "checkpoints.config", "teacher/config.json", "repair",
    ),
    "unknown architecture": (
        lambda w: w.edit(w.teacher / "config.json", model_type="homemade"), "checkpoints.config",
        "teacher/config.json", "transformers itself supports",
    ),
    "no directory": (
        lambda w: w.changes.update(teacher=w.root / "nowhere"), "checkpoints.missing", "nowhere", "Hugging Face",
    ),
    "weights missing": (
        lambda w: (w.teacher / "model.safetensors").unlink(), "checkpoints.no_weights", TEACHER, "download",
    ),
    "weights truncated": (truncate, "checkpoints.weights_damaged", "student/model.safetensors", "again"),
    "weights that are not safetensors": (
        garbage_header, "checkpoints.weights_damaged", "teacher/model.safetensors", "download",
    ),
    "a shard missing": (missing_shard, "checkpoints.shard_missing", TEACHER, "download"),
    "mrope sections": (
        lambda w: w.edit(w.student / "config.json", text_config={"rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "mrope_section": [0, 0, 12]}}),
        "checkpoints.mrope", "student/config.json", "head_dim / 2 = 16",
    ),
    "sliding windows": (
        lambda w: w.edit(w.teacher / "config.json", layer_types=["full_attention", "sliding_attention"]),
        "checkpoints.layers", "teacher/config.json", "full_attention",
    ),
    "prompt over the context": (
        lambda w: w.rows.append({"id": "long", "text": "1+" * 300, "answer": "3"}), "lengths.prompt_over_context",
        DATA, "drop prompts",
    ),
    "completion over the context": (
        lambda w: w.settings.update(max_new_tokens=500), "lengths.context", f"{RUN} config.max_new_tokens",
        "max_new_tokens to at most",
    ),
    "teacher's context shorter": (
        lambda w: w.edit(w.teacher / "config.json", max_position_embeddings=80), "lengths.context",
        f"{RUN} config.max_new_tokens", "max_new_tokens to at most",
    ),
    "traces over max_length": (traces_too_long, "lengths.dropped", f"{RUN} config.max_length", "set max_length to"),
    "traces over the context": (
        lambda w: w.use_traces("1" * 600, max_length=1000), "lengths.trace_over_context", f"{RUN} config.max_length",
        "at most 512",
    ),
    "traces that think aloud": (thinking_traces, "data.think", DATA, "strip the tags"),
    "empty trace": (lambda w: w.use_traces("2", " "), "data.no_completion", DATA, "remove"),
    "no rows": (lambda w: w.rows.clear(), "data.unreadable", DATA, "one row must be left"),
    "no such file": (
        lambda w: w.changes.update(data=w.root / "gone.jsonl"), "data.unreadable", "gone.jsonl", "correct the path",
    ),
    "row without its key": (lambda w: w.rows.append({"id": "x"}), "data.unreadable", DATA, "malformed=skip"),
    "ids twice": (lambda w: w.rows.extend(w.rows[:2]), "data.duplicate_ids", DATA, "id of its own"),
    "prompt without answer": (lambda w: w.rows[3].update(answer=" "), "data.no_answer", DATA, "remove"),
    "prompt without text": (lambda w: w.rows[3].update(text=""), "data.no_text", DATA, "remove"),
    "placeholder in a text": (
        lambda w: w.rows[3].update(text="see <|image_pad|>"), "data.unreadable", DATA, "repair the file",
    ),
    "reference answer that is not an option": (
        lambda w: w.rows[3].update(answer="Z", options=["3", "4"]), "rewards.gold", DATA, "option's letter",
    ),
    "reference answer that is not a formula": (
        lambda w: w.rows[3].update(answer="\\frac{1}{"), "rewards.gold", DATA, "formula",
    ),
    "reference answer with its marks": (lambda w: w.rows[3].update(answer="#### 4"), "rewards.gold", DATA, "bare"),
    "images for a text-only teacher": (pictured, "settings.images", f"{RUN} config.distill.images", "skip"),
    "caption asked for and absent": (
        lambda w: (pictured(w), w.settings["distill"].update(images="caption")), "settings.images",
        f"{RUN} config.distill.images", "add the captions",
    ),
    "file that is not an image": (lambda w: pictured(w, b"GIF89a"), "data.image", DATA, "replace"),
    "no teacher for its term": (
        lambda w: setattr(w, "alone", True), "settings.no_teacher", f"{RUN} config.distill.weight", "under `teacher`",
    ),
    "a teacher without a weight": (
        lambda w: w.settings["distill"].pop("weight"), "settings.silent_teacher", f"{RUN} config.distill.weight",
        "set distill.weight",
    ),
    "warm-up outlasts the run": (
        lambda w: w.settings.update(steps=3), "settings.warmup", f"{RUN} config.optimizer.warmup_steps",
        "below 3",
    ),
    "warm-up outlasts a part of the run": (
        lambda w: w.settings.update(steps=8, schedule="distill_then_reward"), "settings.warmup",
        f"{RUN} config.optimizer.warmup_steps", "below 4",
    ),
    "fewer prompts than a step": (
        lambda w: w.settings.update(prompts_per_step=50), "settings.batch", f"{RUN} config.prompts_per_step",
        "at most 8",
    ),
    "more processes than GPUs": (
        lambda w: w.changes.update(execution=Execution(processes=4)), "settings.processes",
        f"{RUN} execution.processes", "at most 1",
    ),
    "GPUs without a process": (
        lambda w: w.changes.update(device=Device("H100", 80 << 30, 8)), "settings.idle_gpus",
        f"{RUN} execution.processes", "set processes to 8",
    ),
    "vLLM without a kernel for the heads": (
        lambda w: (wide_heads(w), w.settings.update(rollout="vllm")), "engines.head_size", f"{RUN} config.rollout",
        "builtin",
    ),
    "vLLM inside one of several ranks": (
        lambda w: (w.settings.update(rollout="vllm"), w.changes.update(execution=Execution(processes=2))),
        "engines.ranks", f"{RUN} execution.vllm.server", "server to true",
    ),
    "vLLM for shorter sequences": (
        lambda w: (w.settings.update(rollout="vllm"),
                   w.changes.update(execution=Execution.model_validate({"vllm": {"max_length": 64}}))),
        "engines.max_length", f"{RUN} execution.vllm.max_length", "set execution.vllm.max_length to",
    ),
    "vLLM without room for a cache": (
        lambda w: (w.settings.update(rollout="vllm"), w.changes.update(device=Device("toy", 1 << 20))),
        "engines.no_cache", f"{RUN} execution.vllm.memory_share", "memory_share above",
    ),
    "GPU too small": (
        lambda w: w.changes.update(device=Device("toy", 1 << 20)), "memory.too_large", f"{RUN} execution", "lower",
    ),
    "no GPU named": (lambda w: w.changes.update(device=None), "memory.estimate", f"{RUN} execution", "--gpu"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_seeded_fault_is_found_with_its_place_and_fix(name: str, world: World) -> None:
    spoil, expected, place, fix = FAULTS[name]
    spoil(world)
    mine = [finding for finding in findings_of(world) if finding.id == expected]
    assert mine, name
    assert any(place in finding.where and fix in finding.fix for finding in mine), mine


def test_a_healthy_run_has_no_error_and_no_warning(world: World) -> None:
    report = run_preflight([world.job()])
    assert [finding for finding in report.findings if finding.level is not Level.NOTE] == []
    # The tiny teacher has <think> and more padding, like Qwen3 next to Qwen2.5-VL.
    assert {finding.id for finding in report.findings} == {
        "tokenizers.padded_rows",
        "tokenizers.teacher_only",
        "tokenizers.think",
    }
    assert report.unchecked == {}


def test_a_healthy_run_has_none_of_the_seeded_faults(world: World) -> None:
    healthy = {finding.id for finding in findings_of(world)}
    assert healthy.isdisjoint(expected for _, expected, _, _ in FAULTS.values())
    world.use_traces("2", "2")
    assert findings_of(world) == []


def test_the_placebo_needs_no_teacher(world: World) -> None:
    world.alone = True
    assert "settings.no_teacher" in {finding.id for finding in findings_of(world)}
    world.settings["distill"].update(target="placebo")
    assert "settings.no_teacher" not in {finding.id for finding in findings_of(world)}


def test_an_image_counts_as_many_tokens_as_the_student_encodes(world: World, student: Student) -> None:
    pictured(world, text="?", caption="a red shape")
    encoded = student.encode(chat("?", [world.root / "shape.png"]), [world.root / "shape.png"])
    rows = read_prompts(world.job().data)[3:4]  # type: ignore[arg-type]
    side = Checkpoint.at("student", student.path, student.model.config, student.tokenizer)
    assert measure_lengths(side, rows).prompts == (len(encoded.prompt_ids),)
    assert encoded.prompt_ids.count(student.image_token_id) == 4 * 3


def test_another_vocabulary_is_an_error(world: World, rebuild: Callable[..., None]) -> None:
    rebuild(world, first=("shifted",))
    mine = [finding for finding in findings_of(world) if finding.id == "tokenizers.vocabulary"]
    assert mine[0].level is Level.ERROR and "id 0 is '!' in the student, 'shifted' in the teacher" in mine[0].message


def test_a_think_token_of_the_teacher_alone_is_reported_with_the_student_spelling(world: World) -> None:
    mine = next(finding for finding in findings_of(world) if finding.id == "tokenizers.think")
    assert "<think> is one token in the teacher and 7 in the student" in mine.message
    assert "before the cold start" in mine.fix


def test_a_failing_reward_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "verify", lambda *_: SimpleNamespace(correct=False))
    mine = {finding.id: finding for finding in findings_of(world)}
    assert "should be right" in mine["rewards.self_test"].message and "constraints.txt" in mine["rewards.self_test"].fix


def test_a_missing_package_that_the_settings_need_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: None)
    world.settings.update(rollout="vllm")
    mine = next(finding for finding in findings_of(world) if finding.id == "settings.package")
    assert mine.where == "run.yaml config.rollout" and "vold-bench[vllm]" in mine.fix


def test_a_full_disk_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    mine = next(finding for finding in findings_of(world) if finding.id == "disk.too_small")
    assert mine.where == "run.yaml run" and "free space" in mine.fix and str(world.root) in mine.message


def test_a_model_without_weights_is_otherwise_checked_in_full(world: World) -> None:
    for path in (world.student, world.teacher):
        (path / "model.safetensors").unlink()
    report = run_preflight([world.job()])
    assert {f.id for f in report.findings if f.level is Level.ERROR} == {"checkpoints.no_weights"}
    assert report.estimates and len(report.renderings) == 2 and report.unchecked == {}


def test_findings_shared_by_several_runs_are_reported_once(world: World) -> None:
    world.rows[3]["answer"] = ""
    job = world.job()
    assert len(run_preflight([job, job]).findings) == len(run_preflight([job]).findings)
