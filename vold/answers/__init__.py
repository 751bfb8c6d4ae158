"""Answers: how they are extracted from responses, normalised and compared. Nothing here knows a benchmark.

Raise ``VERSION`` whenever an edit in this folder changes how any text is extracted or compared. It is part of the
identity of stages, so rewards and scores computed with the old rules are not reused. If it was not raised,
``tests/vold/answers/test_version.py`` fails. Record the new digest there.
"""

from vold.answers.thoughts import spoken
from vold.answers.transcript import verify_text
from vold.answers.verify import AnswerOutcome, reference_labels, verify

VERSION = 5
"""Number of the current rules; part of the identity of rewards and scores."""

__all__ = ["VERSION", "AnswerOutcome", "reference_labels", "spoken", "verify", "verify_text"]
