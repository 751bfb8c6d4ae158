"""Answers: extraction, normalisation, equality. Knows kinds of answers and no benchmark."""

from vold.answers.thoughts import spoken
from vold.answers.verify import AnswerOutcome, reference_labels, verify

VERSION = 5
"""Counts changes after which some text is read or compared otherwise; part of the identity of rewards and scores."""

__all__ = ["VERSION", "AnswerOutcome", "reference_labels", "spoken", "verify"]
