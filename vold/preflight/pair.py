"""The fast part of the preflight, which the trainer itself runs before its first step."""

import logging

from vold.findings import Finding, Level, errors
from vold.models.checkpoint import Checkpoint, Role
from vold.models.language_model import LanguageModel
from vold.preflight.images import vision_findings
from vold.preflight.templates import template_findings
from vold.preflight.tokenizers import tokenizer_findings

_log = logging.getLogger(__name__)


class PairError(ValueError):
    """Student and teacher, or the student alone, cannot be trained with their present files."""


def model_findings(student: Checkpoint, teacher: Checkpoint | None) -> list[Finding]:
    """Checks of tokenizers, templates and images. Both checkpoints must have their tokenizers."""
    return tokenizer_findings(student, teacher) + template_findings(student, teacher) + vision_findings(student)


def check_models(student: LanguageModel, teacher: LanguageModel | None = None) -> list[Finding]:
    """Refuse loaded models that cannot be trained together. Returns warnings and notes, and logs the warnings.

    Raises PairError with every error, where it is and how to fix it.
    """
    findings = model_findings(_loaded("student", student), None if teacher is None else _loaded("teacher", teacher))
    if fatal := errors(findings):
        raise PairError("\n".join(map(str, fatal)))
    for finding in findings:
        if finding.level is Level.WARNING:
            _log.warning("%s", finding)
    return findings


def _loaded(role: Role, model: LanguageModel) -> Checkpoint:
    return Checkpoint.at(role, model.path, model.model.config, model.tokenizer)
