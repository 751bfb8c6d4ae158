"""The trace notations of the small world.

All three are equally right. They differ in how a trace is written:

- ``ledger`` restates the problem and then does the steps: ``7+5-3:7+5=2,2-3=9.\\boxed{9}``.
- ``list`` does the same steps in another style: ``#7+5-3;7+5=2;2-3=9;\\boxed{9}``. It is a near
  mismatch of ``ledger``: nothing that matters for the answer differs.
- ``tape`` alternates reading and stepping: ``#7;+5#2;-3#9.\\boxed{9}``. It is a far mismatch of ``ledger``.
"""

from typing import Literal

from bench.smallworld.problems import WorldProblem

Notation = Literal["ledger", "list", "tape"]


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _equation(problem: WorldProblem, index: int) -> str:
    values = problem.values
    return f"{values[index]}{problem.operations[index]}{problem.digits[index + 1]}={values[index + 1]}"


def _tape_step(problem: WorldProblem, index: int) -> str:
    return f"{problem.operations[index]}{problem.digits[index + 1]}#{problem.values[index + 1]}"


def trace(problem: WorldProblem, notation: Notation) -> str:
    """The complete reasoning: one step per operation, then the boxed answer."""
    steps = range(len(problem.operations))
    choice = problem.form == "choice"
    match notation:
        case "ledger":
            body = f"{problem.chain}:" + ",".join(_equation(problem, index) for index in steps)
            last = f";{problem.values[-1]}={problem.answer}." if choice else "."
        case "list":
            body = f"#{problem.chain};" + ";".join(_equation(problem, index) for index in steps)
            last = f";@{problem.answer};" if choice else ";"
        case "tape":
            body = f"#{problem.digits[0]};" + ";".join(_tape_step(problem, index) for index in steps)
            last = f";@{problem.answer}." if choice else "."
    return f"{body}{last}{boxed(problem.answer)}"


def first_step(problem: WorldProblem, notation: Literal["ledger", "tape"]) -> str:
    """The beginning of a trace up to its first step: the single-step skill of the base student."""
    if notation == "ledger":
        return f"{problem.chain}:{_equation(problem, 0)}"
    return f"#{problem.digits[0]};{_tape_step(problem, 0)}"
