"""The problems of the small world: graded difficulty, one verifiable answer, two families.

``chain`` is left-to-right arithmetic modulo 10, such as ``7+5-3*9``. ``bars`` is a row of bars whose heights are
summed, or alternately subtracted and added, modulo 10. Both have 2 to 6 operations and need one step per operation.
Factors are 3, 7 or 9 (units modulo 10), so answers are uniform and a guess is right one time in ten.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vold.seeding import derive, generator

Family = Literal["chain", "bars"]
Form = Literal["free", "choice"]
WorldSplit = Literal["train", "test", "tune", "check"]
Rule = Callable[[int, str, int], int]
"""The result of an operation on a value and a digit, modulo 10."""

MIN_OPERATIONS, MAX_OPERATIONS = 2, 6
FACTORS = (3, 7, 9)
LETTERS = "ABCDEFGHIJ"
PAGE_OPTIONS = "".join(f"{letter}{value}" for value, letter in enumerate(LETTERS))
BIN_OPTIONS = "A01B23C45D67E89"
# The bucket of a problem follows from its digits and operations, so two splits never share a problem.
BUCKETS = 16
HELD_OUT: dict[int, WorldSplit] = {0: "test", 1: "tune", 2: "check"}


@dataclass(frozen=True, slots=True)
class WorldProblem:
    """A problem. ``operations[i]`` combines the value so far with ``digits[i + 1]``; ``mode`` of bars is sum or alt."""

    family: Family
    digits: tuple[int, ...]
    operations: str
    form: Form
    mode: str = ""

    @property
    def key(self) -> str:
        """The content of the problem without its form. No key occurs in two splits."""
        return self.chain if self.family == "chain" else f"{self.mode}:{self.symbols}"

    @property
    def split(self) -> WorldSplit:
        bucket = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4], "big") % BUCKETS
        return HELD_OUT.get(bucket, "train")

    @property
    def chain(self) -> str:
        """The problem as a chain such as ``7+5-3``."""
        tail = "".join(f"{op}{digit}" for op, digit in zip(self.operations, self.digits[1:], strict=True))
        return f"{self.digits[0]}{tail}"

    @property
    def symbols(self) -> str:
        """The content of the image, one symbol per cell. The symbol of a bar is its height."""
        if self.family == "bars":
            return "".join(map(str, self.digits))
        return self.chain + (f"?{PAGE_OPTIONS}" if self.form == "choice" else "")

    @property
    def tail(self) -> str:
        """The question after its verb: the mode and the options of bars, nothing for a chain."""
        if self.family == "chain":
            return ""
        return f" {self.mode}" + (f" {BIN_OPTIONS}" if self.form == "choice" else "")

    @property
    def values(self) -> tuple[int, ...]:
        """The first digit and the value after each operation."""
        return self.values_by(apply)

    def values_by(self, rule: Rule) -> tuple[int, ...]:
        """The first digit and the value after each operation, for somebody who computes by ``rule``."""
        values = [self.digits[0]]
        for op, digit in zip(self.operations, self.digits[1:], strict=True):
            values.append(rule(values[-1], op, digit))
        return tuple(values)

    @property
    def answer(self) -> str:
        """The answer: a digit, or the letter of an option."""
        return self.name_of(self.values[-1])

    def name_of(self, value: int) -> str:
        """How an answer names ``value``: as a digit, or by the letter of its option."""
        return self.letter(value) if self.form == "choice" else str(value)

    def letter(self, value: int) -> str:
        """The letter of the option with ``value``: ten options for a chain, five pairs of values for bars."""
        return LETTERS[value] if self.family == "chain" else LETTERS[value // 2]

    def text(self, verb: str = "solve") -> str:
        """The text form of the problem. In the other form, an image is between the same brackets."""
        return f"[{self.symbols}]{verb}{self.tail}"


def apply(left: int, operation: str, right: int) -> int:
    """The result of one operation, modulo 10."""
    match operation:
        case "+":
            return (left + right) % 10
        case "-":
            return (left - right) % 10
        case "*":
            return (left * right) % 10
    raise ValueError(f"unknown operation {operation!r}")


def misread(left: int, operation: str, right: int) -> int:
    """The result of one operation for somebody who takes every 7 on the right for a 1."""
    return apply(left, operation, 1 if right == 7 else right)


def draw_problem(rng: np.random.Generator, family: Family, form: Form, operations: int) -> WorldProblem:
    """A random problem of a family, a form and a number of operations."""
    digits = [int(digit) for digit in rng.integers(0, 10, operations + 1)]
    if family == "bars":
        mode = ("sum", "alt")[int(rng.integers(2))]
        signs = "+" * operations if mode == "sum" else ("-+" * operations)[:operations]
        return WorldProblem(family, tuple(digits), signs, form, mode)
    signs = "".join(rng.choice(list("+-*"), operations))
    for position, sign in enumerate(signs, 1):
        if sign == "*":
            digits[position] = int(rng.choice(FACTORS))
    return WorldProblem(family, tuple(digits), signs, form)


def stream(
    seed: int, name: str, split: WorldSplit, family: Family | None = None, form: Form | None = None
) -> Iterator[WorldProblem]:
    """An endless stream of distinct problems of one split, with 2 to 6 operations in equal shares."""
    rng = generator(derive(seed, "smallworld"), name, split, family or "any", form or "any")
    drawn: set[tuple[str, str]] = set()
    while True:
        any_family: Family = family or ("chain", "bars")[int(rng.integers(2))]
        any_form: Form = form or ("free", "choice")[int(rng.integers(2))]
        problem = draw_problem(rng, any_family, any_form, int(rng.integers(MIN_OPERATIONS, MAX_OPERATIONS + 1)))
        if problem.split == split and (problem.key, problem.form) not in drawn:
            drawn.add((problem.key, problem.form))
            yield problem
