"""Does the student's prompt hold one placeholder for each visual token that its tower makes?"""

from vold.findings import Finding, error
from vold.models.checkpoint import Checkpoint

_PLACEHOLDER = "<|image_pad|>"
_GRID = 576  # patches of the image in the example: 24 x 24


def vision_findings(student: Checkpoint) -> list[Finding]:
    """All checks of this theme; silent for a student without eyes, which is a finding elsewhere."""
    vision = getattr(student.config, "vision_config", None)
    if vision is None or student.tokenizer is None:
        return []
    return _placeholder_findings(student) + _grid_findings(student) + _width_findings(student)


def _placeholder_findings(student: Checkpoint) -> list[Finding]:
    named, known = student.config.image_token_id, student.tokenizer.get_vocab().get(_PLACEHOLDER)
    if known is None or named != known:
        where = "nothing" if known is None else f"id {known}"
        message = f"image_token_id is {named}, but the tokenizer has {where} for {_PLACEHOLDER}"
        fix = "set image_token_id to the tokenizer's id of the placeholder; take both files from one source"
        return [error("images.placeholder", message, student.path / "config.json", fix)]
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is shown?"}]}]
    try:
        count = student.tokenizer.apply_chat_template(message, tokenize=False).count(_PLACEHOLDER)
    except Exception:  # a template that fails is the theme templates' finding, or knows no images
        count = 0
    if count == 1:
        return []
    message = f"the chat template writes {count} placeholders for one image"
    fix = f"the template must write {_PLACEHOLDER} once for each part of type image: use the release's"
    return [error("images.template", message, student.path / "chat_template.jinja", fix)]


def _grid_findings(student: Checkpoint) -> list[Finding]:
    """Processor and tower must cut an image alike: patch, merge and the frames a patch spans."""
    vision, findings = student.config.vision_config, []
    pairs = (
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    )
    for cut, tower in pairs:
        ours, theirs = student.processor.get(cut), getattr(vision, tower, None)
        if ours is not None and theirs is not None and ours != theirs:
            message = f"the processor's {cut} is {ours}, the tower's {tower} is {theirs}"
            if cut == "merge_size":
                message += (
                    f": {_GRID // ours**2} placeholders for {_GRID // theirs**2} visual tokens of {_GRID} patches"
                )
            fix = f"set {cut} to {theirs}, as in the vision_config of config.json"
            findings.append(error("images.grid", message, student.path / "preprocessor_config.json", fix))
    return findings


def _width_findings(student: Checkpoint) -> list[Finding]:
    made, read = student.config.vision_config.out_hidden_size, student.text.hidden_size
    if made == read:
        return []
    message = f"the tower makes vectors of {made}, the language model reads {read}"
    return [error("images.width", message, student.path / "config.json", "set out_hidden_size to hidden_size")]
