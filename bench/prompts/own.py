"""This project's templates: the question, its options and one instruction, for any benchmark."""

from collections.abc import Callable

from bench.prompts.base import TRANSCRIBE, Template, letter_options, option_lines
from bench.records import Problem

NO_QUESTION = "solve"
"""The text next to an image that shows the complete question (MMMU-Pro vision, small world)."""

Instruction = Callable[[Problem], str]


def _nothing(problem: Problem) -> str:
    return ""


def _boxed(problem: Problem) -> str:
    return r"Please reason step by step, and put your final answer within \boxed{}."


def _direct(problem: Problem) -> str:
    if problem.kind == "choice":
        return "Answer with the option letter from the given choices directly."
    if problem.kind == "choices":
        return "Answer with the letters of all correct choices, separated by commas, directly."
    return "Answer with the final value directly, without an explanation."


def _cot(problem: Problem) -> str:
    answer = {"choice": "the option letter", "choices": "the letters of all correct choices"}.get(
        problem.kind, "the value"
    )
    return (
        "Think step by step before answering. The last line of your response should be of the following format: "
        f"'Answer: X' (without quotes) where X is {answer}."
    )


def _or_transcribe(instruction: Instruction) -> Instruction:
    """``instruction``, or that to transcribe where the answer is the text in the image."""
    return lambda problem: TRANSCRIBE if problem.kind == "text" else instruction(problem)


def _first(instruction: Instruction) -> Callable[[Problem], str]:
    """Version 1: one line ``A. text`` per option. A page without a question gets ``solve``."""

    def text(problem: Problem) -> str:
        options = letter_options(problem.options) if problem.question else []
        return _lines(problem.question or NO_QUESTION, *options, instruction(problem))

    return text


def _second(instruction: Instruction) -> Callable[[Problem], str]:
    """Version 2: options in the form of the benchmark. A page without a question gets only the instruction."""

    def text(problem: Problem) -> str:
        if not problem.question:
            return instruction(problem) or NO_QUESTION
        return _lines(problem.question, *option_lines(problem), instruction(problem))

    return text


def _lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


_INSTRUCTIONS: dict[str, Instruction] = {
    "plain": _nothing,
    "boxed": _or_transcribe(_boxed),
    "direct": _or_transcribe(_direct),
    "cot": _or_transcribe(_cot),
}

OWN = [
    *(Template(f"{name}@1", _first(instruction)) for name, instruction in _INSTRUCTIONS.items()),
    *(Template(f"{name}@2", _second(instruction)) for name, instruction in _INSTRUCTIONS.items()),
]
