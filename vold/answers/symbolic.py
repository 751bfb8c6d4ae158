"""Symbolic equality of expressions by math-verify, in a process of its own that may be killed."""

from vold.answers.values import Value


def equal(answer: Value, gold: Value) -> tuple[bool, str]:
    return answer.text == gold.text, "text"
