"""Problems of graded difficulty with one verifiable answer, in two families.

``chain``: left-to-right arithmetic modulo 10, ``7+5-3*9``; ``bars``: a row of bars whose heights are summed
or alternately subtracted and added, modulo 10. Both need one step an operation, 2 to 8 of them. Factors are
3, 7 or 9 (units modulo 10), so that answers are uniform and a guess is right one time in ten.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vold.seeding import derive, generator

Family = Literal["chain", "bars"]
Form = Literal["free", "choice"]
WorldSplit = Literal["train", "test", "tune", "check"]

MIN_OPERATIONS, MAX_OPERATIONS = 2, 8
FACTORS = (3, 7, 9)
LETTERS = "ABCDEFGHIJ"
PAGE_OPTIONS = "".join(f"{letter}{value}" for value, letter in enumerate(LETTERS))
BIN_OPTIONS = "A01B23C45D67E89"
# A problem's bucket follows from its own digits and operations, so no split can share a problem with another.
BUCKETS = 16
HELD_OUT: dict[int, WorldSplit] = {0: "test", 1: "tune", 2: "check"}


@dataclass(frozen=True, slots=True)
class WorldProblem:
    """``operations[i]`` joins the value so far with ``digits[i + 1]``; ``mode`` is ``sum`` or ``alt`` for bars."""

    family: Family
    digits: tuple[int, ...]
    operations: str
    form: Form
    mode: str = ""

    @property
    def key(self) -> str:
        """The problem itself, whatever its form: what must not occur in two splits."""
        return self.chain if self.family == "chain" else f"{self.mode}:{self.symbols}"

    @property
    def split(self) -> WorldSplit:
        bucket = int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4], "big") % BUCKETS
        return HELD_OUT.get(bucket, "train")

    @property
    def chain(self) -> str:
        """The problem written as a chain: ``7+5-3``."""
        tail = "".join(f"{op}{digit}" for op, digit in zip(self.operations, self.digits[1:], strict=True))
        return f"{self.digits[0]}{tail}"

    @property
    def symbols(self) -> str:
        """What a reader of the image sees, one symbol a cell (a bar is read as its height)."""
        if self.family == "bars":
            return "".join(map(str, self.digits))
        return self.chain + (f"?{PAGE_OPTIONS}" if self.form == "choice" else "")

    @property
    def tail(self) -> str:
        """What the question says after its verb: the mode of the bars, and their options."""
        if self.family == "chain":
            return ""
        return f" {self.mode}" + (f" {BIN_OPTIONS}" if self.form == "choice" else "")

    @property
    def values(self) -> tuple[int, ...]:
        """The first digit and the value after each operation."""
        values = [self.digits[0]]
        for op, digit in zip(self.operations, self.digits[1:], strict=True):
            values.append(apply(values[-1], op, digit))
        return tuple(values)

    @property
    def answer(self) -> str:
        """A digit, or the option's letter."""
        value = self.values[-1]
        return self.letter(value) if self.form == "choice" else str(value)

    def letter(self, value: int) -> str:
        """The option that holds ``value``: ten options on a page, five pairs beside bars."""
        return LETTERS[value] if self.family == "chain" else LETTERS[value // 2]

    def text(self, verb: str = "solve") -> str:
        """The text form: brackets stand where the image stands in the other form."""
        return f"[{self.symbols}]{verb}{self.tail}"


def apply(left: int, operation: str, right: int) -> int:
    """One step, modulo 10."""
    match operation:
        case "+":
            return (left + right) % 10
        case "-":
            return (left - right) % 10
        case "*":
            return (left * right) % 10
    raise ValueError(f"unknown operation {operation!r}")


def draw(rng: np.random.Generator, family: Family, form: Form, operations: int) -> WorldProblem:
    """One problem of the given family, form and number of operations."""
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
    """Endless distinct problems of one split; number of operations uniform from 2 to 8."""
    rng = generator(derive(seed, "smallworld"), name, split, family or "any", form or "any")
    seen: set[tuple[str, str]] = set()
    while True:
        chosen_family: Family = family or ("chain", "bars")[int(rng.integers(2))]
        chosen_form: Form = form or ("free", "choice")[int(rng.integers(2))]
        problem = draw(rng, chosen_family, chosen_form, int(rng.integers(MIN_OPERATIONS, MAX_OPERATIONS + 1)))
        if problem.split == split and (problem.key, problem.form) not in seen:
            seen.add((problem.key, problem.form))
            yield problem
