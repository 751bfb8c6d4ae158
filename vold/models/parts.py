"""Freezes parts of a student."""

from collections.abc import Sequence

from vold.config import FreezablePart
from vold.models.language_model import LanguageModel

# Without images these parts get no gradient. Freezing saves their optimizer state and keeps weight decay off them.
_UNREACHED_BY_TEXT: tuple[FreezablePart, ...] = ("vision", "merger")


def to_freeze(parts: Sequence[FreezablePart], *, images: bool) -> tuple[FreezablePart, ...]:
    """``parts``, and without ``images`` also the parts that text does not reach."""
    return (*parts, *(() if images else _UNREACHED_BY_TEXT))


def freeze(student: LanguageModel, parts: Sequence[FreezablePart]) -> None:
    """Turn the gradients of ``parts`` off and all others on.

    ``vision`` is the tower without its merger. ``embeddings`` are input and output embeddings, tied or not.
    """
    base = student.model.model
    student.model.requires_grad_(True)
    if "vision" in parts:
        base.visual.requires_grad_(False)
        base.visual.merger.requires_grad_(True)
    if "merger" in parts:
        base.visual.merger.requires_grad_(False)
    if "embeddings" in parts:
        student.model.get_input_embeddings().requires_grad_(False)
        student.model.get_output_embeddings().requires_grad_(False)
