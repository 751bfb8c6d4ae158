"""The two chat templates side by side: is every turn in, and does the assistant begin and end alike?"""

from collections.abc import Sequence
from dataclasses import dataclass

from vold.findings import Finding, error, note, warning
from vold.models.checkpoint import Checkpoint
from vold.models.language_model import end_of_turn

_SYSTEM, _USER, _ASSISTANT = "Answer briefly.", "What is 12 + 30?", "It is 42."
_TURN = ({"role": "user", "content": _USER},)


@dataclass(frozen=True, slots=True)
class Rendering:
    """One user turn as a checkpoint's template writes it; ``opening`` is what it adds for the assistant to go on."""

    prompt: str
    opening: str
    opening_tokens: tuple[str, ...]


def render_template(side: Checkpoint) -> Rendering | None:
    """None where the template is absent or fails."""
    try:
        whole, bare = _text(side, _TURN, opened=True), _text(side, _TURN)
    except (
        Exception
    ):  # a template is a program of the checkpoint's author; single_template_findings says what it raised
        return None
    shared = next((i for i, (a, b) in enumerate(zip(whole, bare, strict=False)) if a != b), min(len(whole), len(bare)))
    return Rendering(whole, whole[shared:], _tokens(side, whole[shared:]))


def _tokens(side: Checkpoint, text: str) -> tuple[str, ...]:
    """Each token as the text it stands for."""
    return tuple(
        side.tokenizer.decode([index]) for index in side.tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def template_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """All checks of this theme; both checkpoints have their tokenizers."""
    findings = single_template_findings(student)
    if teacher is not None:
        findings += single_template_findings(teacher) + _template_pair_findings(student, teacher)
    return findings


def single_template_findings(side: Checkpoint) -> list[Finding]:
    """One template: present, running, complete, opening and closing the assistant's turn."""
    where = template_file(side)
    if not side.tokenizer.chat_template:
        message = "the tokenizer has no chat template (tokenizer_config.json or chat_template.jinja)"
        return [
            error("templates.none", message, side.path, "copy chat_template.jinja of the instruction-tuned release")
        ]
    try:
        prompt = _text(side, _TURN, opened=True)
    except Exception as exception:
        return [error("templates.fails", f"the template fails on one user turn ({exception})", where, "repair it")]
    findings = []
    if _USER not in prompt:
        fix = "use the template of the release: the model would answer a question it never sees"
        findings.append(error("templates.user_ignored", "the template leaves the user's text out", where, fix))
    rendered = render_template(side)
    if rendered is not None and not rendered.opening:
        fix = "add the `add_generation_prompt` branch that opens the assistant's turn"
        findings.append(error("templates.no_opening", "the template does not open the assistant's turn", where, fix))
    return findings + _system_findings(side) + _closing_findings(side)


def _system_findings(side: Checkpoint) -> list[Finding]:
    where, fix = template_file(side), "put instructions into the user's turn, or repair the template"
    try:
        kept = _SYSTEM in _text(side, ({"role": "system", "content": _SYSTEM}, *_TURN))
    except Exception as exception:
        return [warning("templates.system_ignored", f"the template refuses a system turn ({exception})", where, fix)]
    if kept:
        return []
    return [warning("templates.system_ignored", "the template leaves the system turn out", where, fix)]


def _closing_findings(side: Checkpoint) -> list[Finding]:
    """The trainer ends every trace with the end of turn; the template should close a message with the same token."""
    end = end_of_turn(side.tokenizer)
    if end is None:
        return []
    where, name = template_file(side), side.tokenizer.convert_ids_to_tokens(end)
    try:
        _, separator, rest = _text(side, (*_TURN, {"role": "assistant", "content": _ASSISTANT})).rpartition(_ASSISTANT)
    except Exception as exception:
        separator, rest = "", str(exception)
    if separator and rest.startswith(name):
        return []
    message = f"an assistant's turn is closed with {rest[:20]!r}, completions are trained to end with {name!r}"
    return [error("templates.end_of_turn", message, where, "make eos_token the token with which the template closes")]


def _template_pair_findings(student: Checkpoint, teacher: Checkpoint) -> list[Finding]:
    ours, theirs = render_template(student), render_template(teacher)
    if ours is None or theirs is None:
        return []
    if ours.opening != theirs.opening:
        message = f"the teacher's turn opens with {theirs.opening!r}, the student's with {ours.opening!r}"
        fix = "make both templates open the assistant's turn alike: the teacher reads completions after its own"
        if "<think>" in theirs.opening and "<think>" not in ours.opening:
            fix = (
                "remove <think> from the end of the teacher's template, or add it to the student's: "
                "the teacher would read every completion as a continued thought"
            )
        return [warning("templates.opening_differs", message, template_file(teacher), fix)]
    if ours.prompt != theirs.prompt:
        message = "the same question is wrapped in other words (a default system prompt, for one); shown below"
        fix = "nothing to do where that is how each model was trained"
        return [note("templates.differ", message, template_file(teacher), fix)]
    return []


def template_file(side: Checkpoint) -> str:
    """The file that holds the template."""
    own = side.path / "chat_template.jinja"
    return str(own if own.is_file() else side.path / "tokenizer_config.json")


def _text(side: Checkpoint, messages: Sequence[dict[str, str]], opened: bool = False) -> str:
    return side.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opened)
