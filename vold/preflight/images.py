"""Checks that the student's prompt has one placeholder for each visual token of its tower."""

from vold.findings import Finding, error
from vold.models.checkpoint import Checkpoint

_PLACEHOLDER = "<|image_pad|>"
_GRID = 576  # patches of the image in the example: 24 x 24


def vision_findings(student: Checkpoint) -> list[Finding]:
    """All checks of images. A student without a vision tower is reported by ``vold.models.checkpoint``."""
    vision = getattr(student.config, "vision_config", None)
    if vision is None or student.tokenizer is None:
        return []
    return _placeholder_findings(student) + _grid_findings(student) + _width_findings(student)


def _placeholder_findings(student: Checkpoint) -> list[Finding]:
    config_id, token_id = student.config.image_token_id, student.tokenizer.get_vocab().get(_PLACEHOLDER)
    if token_id is None or config_id != token_id:
        other = "no id" if token_id is None else f"id {token_id}"
        message = f"image_token_id is {config_id}, but the tokenizer has {other} for {_PLACEHOLDER}"
        fix = "set image_token_id to the tokenizer's id of the placeholder, or take both files from one source"
        return [error("images.placeholder", message, student.path / "config.json", fix)]
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}]
    try:
        count = student.tokenizer.apply_chat_template(message, tokenize=False).count(_PLACEHOLDER)
    except Exception:  # templates.py reports a template that fails; it may also not support images
        count = 0
    if count == 1:
        return []
    message = f"the chat template writes {count} placeholders for one image"
    fix = f"use the template of the release, which writes {_PLACEHOLDER} once for each part of type image"
    return [error("images.template", message, student.path / "chat_template.jinja", fix)]


def _grid_findings(student: Checkpoint) -> list[Finding]:
    """Checks that processor and tower cut an image into the same patches."""
    vision, findings = student.config.vision_config, []
    pairs = (
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    )
    for key, tower_key in pairs:
        ours, theirs = student.processor.get(key), getattr(vision, tower_key, None)
        if ours is not None and theirs is not None and ours != theirs:
            message = f"the processor's {key} is {ours}, but the tower's {tower_key} is {theirs}"
            if key == "merge_size":
                message += (
                    f": {_GRID // ours**2} placeholders for {_GRID // theirs**2} visual tokens of {_GRID} patches"
                )
            fix = f"set {key} to {theirs}, as in the vision_config of config.json"
            findings.append(error("images.grid", message, student.path / "preprocessor_config.json", fix))
    return findings


def _width_findings(student: Checkpoint) -> list[Finding]:
    tower_width, text_width = student.config.vision_config.out_hidden_size, student.text.hidden_size
    if tower_width == text_width:
        return []
    message = f"the vision tower gives vectors of {tower_width}, but the language model takes {text_width}"
    return [error("images.width", message, student.path / "config.json", "set out_hidden_size to hidden_size")]
