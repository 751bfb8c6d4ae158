"""Answers: extraction, normalisation, equality. Knows kinds of answers and no benchmark."""

from vold.answers.thoughts import spoken
from vold.answers.verify import Outcome, labels_of_gold, verify

__all__ = ["Outcome", "labels_of_gold", "spoken", "verify"]
