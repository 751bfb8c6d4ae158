"""The trace notations of the small world.

They differ in how a trace is written, not in what is computed:

- ``ledger`` restates the problem and then does the steps: ``7+5-3:7+5=2,2-3=9.\\boxed{9}``.
- ``mirror`` is ``ledger`` with its marks exchanged for others: ``7+5-3#7+5=2|2-3=9!\\boxed{9}``. The two are mirror
  images: exchanging the marks turns every trace of one into that of the other.
- ``list`` does the same steps with one mark in three roles: ``#7+5-3;7+5=2;2-3=9;\\boxed{9}``.
- ``tape`` alternates reading and stepping: ``#7;+5#2;-3#9.\\boxed{9}``.

The base students practise ``ledger`` and ``mirror`` equally, and never see ``list`` or ``tape``.
"""

from dataclasses import astuple, dataclass
from typing import Literal

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


def trace(problem: WorldProblem, notation: Notation, rule: Rule = apply) -> str:
    """The complete reasoning of somebody who computes by ``rule``: one step per operation, then the boxed answer."""
    values = problem.values_by(rule)
    answer = problem.name_of(values[-1])
    choice = problem.form == "choice"
    match notation:
        case "list":
            body = f"#{problem.chain};" + ";".join(_equations(problem, values))
            last = f";@{answer};" if choice else ";"
        case "tape":
            body = f"#{problem.digits[0]};" + ";".join(_tape_steps(problem, values))
            last = f";@{answer}." if choice else "."
        case _:
            marks = MARKS[notation]
            body = f"{problem.chain}{marks.restated}" + marks.step.join(_equations(problem, values))
            last = f"{marks.letter}{values[-1]}={answer}{marks.end}" if choice else marks.end
    return f"{body}{last}{boxed(answer)}"


def opening(problem: WorldProblem, notation: MirroredNotation, steps: int) -> str:
    """The beginning of a trace up to its step number ``steps``, from 1: a skill of the base student."""
    marks = MARKS[notation]
    return f"{problem.chain}{marks.restated}" + marks.step.join(_equations(problem, problem.values)[:steps])
