"""How models of the small world write: two trace notations, and the single skills behind them.

``ledger`` restates the problem and then steps, ``7+5-3:7+5=2,2-3=9.\\boxed{9}``; ``tape`` reads and steps in
turn, ``#7;+5#2;-3#9.\\boxed{9}``. Both are equally right; the teachers differ in nothing else.
"""

from typing import Literal

from bench.smallworld.problems import Problem

Notation = Literal["ledger", "tape"]


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _ledger_step(problem: Problem, index: int) -> str:
    values = problem.values
    return f"{values[index]}{problem.operations[index]}{problem.digits[index + 1]}={values[index + 1]}"


def _tape_step(problem: Problem, index: int) -> str:
    return f"{problem.operations[index]}{problem.digits[index + 1]}#{problem.values[index + 1]}"


def trace(problem: Problem, notation: Notation) -> str:
    """The whole reasoning, one step an operation, ending in the boxed answer."""
    steps = range(len(problem.operations))
    value = problem.values[-1]
    if notation == "ledger":
        body = f"{problem.chain}:" + ",".join(_ledger_step(problem, index) for index in steps)
        choice = f";{value}={problem.answer}" if problem.form == "choice" else ""
    else:
        body = f"#{problem.digits[0]};" + ";".join(_tape_step(problem, index) for index in steps)
        choice = f";@{problem.answer}" if problem.form == "choice" else ""
    return f"{body}{choice}.{boxed(problem.answer)}"


def first_step(problem: Problem, notation: Notation) -> str:
    """How a trace begins, up to its first step; the single-step skill of the base student."""
    if notation == "ledger":
        return f"{problem.chain}:{_ledger_step(problem, 0)}"
    return f"#{problem.digits[0]};{_tape_step(problem, 0)}"
