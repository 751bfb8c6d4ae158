"""Answers: extraction, normalisation, equality. Knows kinds of answers and no benchmark."""

from vold.answers.verify import Outcome, verify

__all__ = ["Outcome", "verify"]
