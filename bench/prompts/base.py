"""What a template is, and how each benchmark prints the options of a question."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.records import Problem


@dataclass(frozen=True, slots=True)
class Template:
    """``text`` gives the whole of the user's turn, with the marks of images.

    benchmark: the only one whose problems it fits; None: any.
    """

    name: str
    text: Callable[[Problem], str]
    benchmark: str | None = None


def letter_options(options: Sequence[str], form: str = "{}. {}") -> list[str]:
    """A line an option: its letter and its text."""
    return [form.format(letter, text) for letter, text in zip(string.ascii_uppercase, options, strict=False)]


def option_lines(problem: Problem) -> list[str]:
    """The options in the benchmark's own form, line by line.

    MathVision leaves them out where they are nothing but the letters A to E: there they stand in the image.
    """
    if problem.benchmark == "mathvision":
        return [] if "".join(problem.options) == "ABCDE" else letter_options(problem.options, "({}) {}")
    if problem.benchmark == "mathvista":
        return ["Choices:", *letter_options(problem.options, "({}) {}")] if problem.options else []
    return letter_options(problem.options)
