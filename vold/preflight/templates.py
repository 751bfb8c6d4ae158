"""Checks of the chat templates: whether every turn appears, and how the assistant's turn begins and ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from vold.findings import Finding, error, note, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import end_of_turn

_SYSTEM, _USER, _ASSISTANT = "Answer briefly.", "What is 12 + 30?", "It is 42."
_TURN = ({"role": "user", "content": _USER},)


@dataclass(frozen=True, slots=True)
class Rendering:
    """One user turn as a checkpoint's template writes it.

    opening: the end of ``prompt`` that opens the assistant's turn.
    opening_tokens: the text of each of its tokens.
    """

    prompt: str
    opening: str
    opening_tokens: tuple[str, ...]


def render_template(checkpoint: Checkpoint) -> Rendering | None:
    """The template's rendering of one user turn; None if there is no template or it fails."""
    try:
        prompt, turn = _text(checkpoint, _TURN, opened=True), _text(checkpoint, _TURN)
    except Exception:  # a template is a program and may raise anything; single_template_findings reports it
        return None
    pairs = enumerate(zip(prompt, turn, strict=False))
    shared = next((index for index, (a, b) in pairs if a != b), min(len(prompt), len(turn)))
    return Rendering(prompt, prompt[shared:], _tokens(checkpoint, prompt[shared:]))


def _tokens(checkpoint: Checkpoint, text: str) -> tuple[str, ...]:
    """The text of each token of ``text``."""
    ids = checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
    return tuple(checkpoint.tokenizer.decode([token_id]) for token_id in ids)


def template_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """All checks of the chat templates. Both checkpoints must have their tokenizers."""
    findings = single_template_findings(student)
    if teacher is not None:
        findings += single_template_findings(teacher) + _template_pair_findings(student, teacher)
    return findings


def single_template_findings(checkpoint: Checkpoint) -> list[Finding]:
    """Checks that one template exists, runs, is complete, and opens and closes the assistant's turn."""
    where = template_file(checkpoint)
    if not checkpoint.tokenizer.chat_template:
        message = "the tokenizer has no chat template (tokenizer_config.json or chat_template.jinja)"
        fix = "copy chat_template.jinja of the instruction-tuned release"
        return [error("templates.none", message, checkpoint.path, fix)]
    try:
        prompt = _text(checkpoint, _TURN, opened=True)
    except Exception as exception:
        message = f"the chat template fails on one user turn ({exception})"
        return [error("templates.fails", message, where, "repair the template, or copy it from the release")]
    findings = []
    if _USER not in prompt:
        message = "the chat template leaves out the user's text, so the model would not see the question"
        findings.append(error("templates.user_ignored", message, where, "use the template of the release"))
    rendering = render_template(checkpoint)
    if rendering is not None and not rendering.opening:
        message = "the chat template does not open the assistant's turn"
        fix = "add the `add_generation_prompt` branch that opens it"
        findings.append(error("templates.no_opening", message, where, fix))
    return findings + _system_findings(checkpoint) + _closing_findings(checkpoint)


def _system_findings(checkpoint: Checkpoint) -> list[Finding]:
    where, fix = template_file(checkpoint), "put instructions into the user's turn, or repair the template"
    try:
        included = _SYSTEM in _text(checkpoint, ({"role": "system", "content": _SYSTEM}, *_TURN))
    except Exception as exception:
        message = f"the chat template refuses a system turn ({exception})"
        return [warning("templates.system_ignored", message, where, fix)]
    if included:
        return []
    return [warning("templates.system_ignored", "the chat template leaves out the system turn", where, fix)]


def _closing_findings(checkpoint: Checkpoint) -> list[Finding]:
    """Checks that the template closes a message with the end-of-turn token with which the trainer ends traces."""
    end = end_of_turn(checkpoint.tokenizer)
    if end is None:
        return []
    where, name = template_file(checkpoint), checkpoint.tokenizer.convert_ids_to_tokens(end)
    try:
        text = _text(checkpoint, (*_TURN, {"role": "assistant", "content": _ASSISTANT}))
        _, separator, rest = text.rpartition(_ASSISTANT)
    except Exception as exception:
        separator, rest = "", str(exception)
    if separator and rest.startswith(name):
        return []
    message = (
        f"the chat template closes the assistant's turn with {rest[:20]!r}, but completions are trained to end with "
        f"{name!r}"
    )
    fix = "set eos_token to the token with which the template closes a turn"
    return [error("templates.end_of_turn", message, where, fix)]


def _template_pair_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    ours, theirs = render_template(student), render_template(teacher)
    if ours is None or theirs is None:
        return []
    if ours.opening != theirs.opening:
        message = f"the teacher's turn opens with {theirs.opening!r}, the student's with {ours.opening!r}"
        fix = "make both templates open the assistant's turn in the same way, as the teacher reads completions after it"
        if "<think>" in theirs.opening and "<think>" not in ours.opening:
            message += ", so the teacher would read every completion as a continued thought"
            fix = "remove <think> from the end of the teacher's template, or add it to the student's"
        return [warning("templates.opening_differs", message, template_file(teacher), fix)]
    if ours.prompt != theirs.prompt:
        message = "student and teacher see different text around the same question, such as a default system prompt"
        fix = "change nothing if each model was trained with its template; the preflight shows both texts"
        return [note("templates.differ", message, template_file(teacher), fix)]
    return []


def template_file(checkpoint: Checkpoint) -> str:
    """The file that contains the chat template."""
    jinja = checkpoint.path / "chat_template.jinja"
    return str(jinja if jinja.is_file() else checkpoint.path / "tokenizer_config.json")


def _text(checkpoint: Checkpoint, messages: Sequence[dict[str, str]], opened: bool = False) -> str:
    return checkpoint.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
