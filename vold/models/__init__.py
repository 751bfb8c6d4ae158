"""Loads, freezes, runs and saves students and teachers."""

from vold.models.encoder import EncodedPrompt, Encoder
from vold.models.language_model import LanguageModel
from vold.models.loading import ModelError, load_encoder, load_student, load_teacher
from vold.models.parts import freeze, to_freeze
from vold.models.saving import save_checkpoint
from vold.models.student import Student

__all__ = [
    "EncodedPrompt",
    "Encoder",
    "LanguageModel",
    "ModelError",
    "Student",
    "freeze",
    "load_encoder",
    "load_student",
    "load_teacher",
    "save_checkpoint",
    "to_freeze",
]
