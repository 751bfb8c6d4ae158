"""The trace notations of the small world.

They differ in how a trace is written, not in what is computed:

- ``ledger`` restates the problem and then does the steps: ``7+5-3:7+5=2,2-3=9.\\boxed{9}``.
- ``mirror`` is ``ledger`` with its marks exchanged for others: ``7+5-3#7+5=2|2-3=9!\\boxed{9}``. The two are mirror
  images: exchanging the marks turns every trace of one into that of the other.
- ``list`` does the same steps with one mark in three roles: ``#7+5-3;7+5=2;2-3=9;\\boxed{9}``.
- ``tape`` alternates reading and stepping: ``#7;+5#2;-3#9.\\boxed{9}``.

The base students practise steps with any of the marks of ``ledger`` and ``mirror`` in any role. So no notation of this
form is closer to them than another.
"""

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np

from bench.smallworld.problems import Rule, WorldProblem, apply

Notation = Literal["ledger", "mirror", "list", "tape"]
MirroredNotation = Literal["ledger", "mirror"]


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of a trace: after the restated problem, between two steps, before the letter, and at the end."""

    restated: str
    step: str
    letter: str
    end: str


MARKS: dict[MirroredNotation, Marks] = {"ledger": Marks(":", ",", ";", "."), "mirror": Marks("#", "|", "@", "!")}


def random_marks(rng: np.random.Generator) -> Marks:
    """Different marks for the four roles, drawn from those of both notations."""
    return Marks(*rng.permutation([mark for pair in mark_pairs() for mark in pair])[:4].tolist())


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def mark_pairs() -> tuple[tuple[str, str], ...]:
    """Each mark of ``ledger`` with its mirror image."""
    return tuple(zip(astuple(MARKS["ledger"]), astuple(MARKS["mirror"]), strict=True))


def mirrored(text: str) -> str:
    """The text with every mark of ``ledger`` exchanged for its mirror image, and the reverse."""
    pairs = mark_pairs()
    return text.translate(str.maketrans(dict(pairs) | {right: left for left, right in pairs}))


def _equations(problem: WorldProblem, values: tuple[int, ...]) -> list[str]:
    steps = zip(values, problem.operations, problem.digits[1:], values[1:], strict=False)
    return [f"{left}{operation}{digit}={right}" for left, operation, digit, right in steps]


def _tape_steps(problem: WorldProblem, values: tuple[int, ...]) -> list[str]:
    steps = zip(problem.operations, problem.digits[1:], values[1:], strict=True)
    return [f"{operation}{digit}#{value}" for operation, digit, value in steps]


def marked_trace(problem: WorldProblem, marks: Marks, rule: Rule = apply) -> str:
    """The complete reasoning of somebody who computes by ``rule``: restatement, steps, then the boxed answer."""
    values = problem.values_by(rule)
    answer = problem.name_of(values[-1])
    choice = f"{marks.letter}{values[-1]}={answer}" if problem.form == "choice" else ""
    steps = marks.step.join(_equations(problem, values))
    return f"{problem.chain}{marks.restated}{steps}{choice}{marks.end}{boxed(answer)}"


def trace(problem: WorldProblem, notation: Notation, rule: Rule = apply) -> str:
    """The complete reasoning in a notation."""
    values = problem.values_by(rule)
    answer = problem.name_of(values[-1])
    choice = f";@{answer}" if problem.form == "choice" else ""
    match notation:
        case "list":
            return f"#{problem.chain};{';'.join(_equations(problem, values))}{choice};{boxed(answer)}"
        case "tape":
            return f"#{problem.digits[0]};{';'.join(_tape_steps(problem, values))}{choice}.{boxed(answer)}"
        case _:
            return marked_trace(problem, MARKS[notation], rule)


def opening(problem: WorldProblem, marks: Marks, steps: int) -> str:
    """The beginning of a trace up to its step number ``steps``, from 1: a skill of the base student."""
    return f"{problem.chain}{marks.restated}" + marks.step.join(_equations(problem, problem.values)[:steps])
