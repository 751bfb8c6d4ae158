r"""Judges transcriptions: a response must state a text exactly, except for its white space.

Changes of any verdict here need a new ``vold.answers.VERSION``.
"""

import unicodedata

from vold.answers.extract import last_box
from vold.answers.text import unwrap
from vold.answers.thoughts import spoken
from vold.answers.verify import AnswerOutcome


def verify_text(response: str, answer: str) -> AnswerOutcome:
    r"""Judge whether ``response`` is the text ``answer``, character by character.

    The response states the text in its last ``\boxed{}``, where ``\text{}`` is ignored, or as a whole. Runs of white
    space count as one blank, and both texts are compared in Unicode's composed form (NFC). Thoughts (``<think>``) are
    ignored. Nothing is read out of a sentence around the text.
    """
    whole = spoken(response)
    box = last_box(whole)
    text, method = (whole, "lone") if box is None else (unwrap(box), "boxed")
    stated = _normalised(text)
    if not stated:
        return AnswerOutcome("unparsed")
    return AnswerOutcome("right" if stated == _normalised(answer) else "wrong", text, stated, method)


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
