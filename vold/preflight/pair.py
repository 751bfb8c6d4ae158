"""The cheap part of the preflight, which the trainer runs itself before its first step."""

import logging

from vold.findings import Finding, Level, errors
from vold.models.checkpoint import Checkpoint, Role
from vold.models.language_model import LanguageModel
from vold.preflight.images import vision_findings
from vold.preflight.templates import template_findings
from vold.preflight.tokenizers import tokenizer_findings

_log = logging.getLogger(__name__)


class PairError(ValueError):
    """Student and teacher, or the student alone, cannot be trained as they are."""


def model_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """Tokenizers, templates and images; both checkpoints have their tokenizers."""
    return tokenizer_findings(student, teacher) + template_findings(student, teacher) + vision_findings(student)


def check_models(student: LanguageModel, teacher: LanguageModel | None = None) -> list[Finding]:
    """Refuse loaded models that cannot be trained together; warnings are logged and returned with the notes.

    Raises PairError naming every error's place and mend.
    """
    findings = model_findings(_loaded("student", student), None if teacher is None else _loaded("teacher", teacher))
    if wrong := errors(findings):
        raise PairError("\n".join(map(str, wrong)))
    for finding in findings:
        if finding.level is Level.WARNING:
            _log.warning("%s", finding)
    return findings


def _loaded(role: Role, model: LanguageModel) -> Checkpoint:
    return Checkpoint.at(role, model.path, model.model.config, model.tokenizer)
