"""Prompt templates, and how each benchmark writes the options of a question."""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.errors import ConfigurationError
from bench.records import Problem

TRANSCRIBE = "Answer with the text in the image alone, without reasoning and without an explanation."
"""The instruction of every template for a problem whose answer is a text: perception is asked without reasoning."""


@dataclass(frozen=True, slots=True)
class Template:
    """A named prompt. ``text`` makes the complete user turn for a problem, including image marks.

    benchmarks: the benchmarks that have such a prompt; None means that it fits any problem.
    """

    name: str
    text: Callable[[Problem], str]
    benchmarks: tuple[str, ...] | None = None

    def check(self, benchmark: str) -> None:
        """Raise ConfigurationError if the template does not fit the benchmark."""
        if self.benchmarks is not None and benchmark not in self.benchmarks:
            raise ConfigurationError(
                f"the prompt template {self.name!r} is for {', '.join(self.benchmarks)}, not for {benchmark}. Choose a "
                "template such as official@1 or boxed@2, or add an official prompt to bench/prompts/official.py"
            )


def letter_options(options: Sequence[str], form: str = "{}. {}") -> list[str]:
    """One line per option with its letter and text."""
    return [form.format(letter, text) for letter, text in zip(string.ascii_uppercase, options, strict=False)]


def option_lines(problem: Problem) -> list[str]:
    """The lines with the options, in the form of the benchmark's own prompts.

    MathVision leaves out options that are only the letters A to E, because the image shows them. A benchmark without
    a form of its own gets ``A. text``.
    """
    if problem.benchmark == "mathvision":
        return [] if "".join(problem.options) == "ABCDE" else letter_options(problem.options, "({}) {}")
    if problem.benchmark == "mathvista":
        return ["Choices:", *letter_options(problem.options, "({}) {}")] if problem.options else []
    return letter_options(problem.options)
