"""The pretraining curriculum of the small world: what its models learn before any experiment.

A teacher sees complete traces in its own notation. The base student learns to transcribe an image and to do single
steps: the first step in either notation, drills of unconnected operations, one-operation problems, and the letter of
an answer. For problems of two or more operations it sees the answer only, never the reasoning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.smallworld.notation import Notation, boxed, first_step, trace
from bench.smallworld.problems import (
    FACTORS,
    MAX_OPERATIONS,
    MIN_OPERATIONS,
    Family,
    Form,
    WorldProblem,
    apply,
    draw_problem,
)

DRILLS = 6
# The base student sees one step of each notation. ``list`` has the steps of ``ledger``.
NOTATIONS: tuple[Notation, ...] = ("ledger", "tape")
Mix = Sequence[tuple[str, float]]

TEACHER_MIX: Mix = (("solve", 0.7), ("single", 0.3))
STUDENT_TEXT_MIX: Mix = (
    ("drill", 0.25),
    ("read", 0.2),
    ("first", 0.3),
    ("single", 0.12),
    ("pick", 0.03),
    ("guess", 0.1),
)
STUDENT_IMAGE_MIX: Mix = (("read", 0.35), ("first", 0.3), ("single", 0.2), ("guess", 0.15))


@dataclass(frozen=True, slots=True)
class WorldLesson:
    """A prompt and the completion to learn. ``image`` is the problem whose image replaces the bracketed text."""

    skill: str
    prompt: str
    completion: str
    image: WorldProblem | None = None


def _problem(rng: np.random.Generator, operations: int | None = None) -> WorldProblem:
    """A problem of the training split. One-operation problems have no split, because every model learns them."""
    families: tuple[Family, ...] = ("chain", "bars")
    forms: tuple[Form, ...] = ("free", "choice")
    while True:
        count = operations or int(rng.integers(MIN_OPERATIONS, MAX_OPERATIONS + 1))
        problem = draw_problem(rng, families[int(rng.integers(2))], forms[int(rng.integers(2))], count)
        if operations == 1 or problem.split == "train":
            return problem


def _drill(rng: np.random.Generator) -> WorldLesson:
    sums = []
    for _ in range(DRILLS):
        op = "+-*"[int(rng.integers(3))]
        left, right = int(rng.integers(10)), int(rng.choice(FACTORS) if op == "*" else rng.integers(10))
        sums.append((f"{left}{op}{right}", apply(left, op, right)))
    prompt = ",".join(text for text, _ in sums)
    return WorldLesson("drill", f"[{prompt}]drill", ",".join(f"{text}={value}" for text, value in sums))


def lesson(rng: np.random.Generator, skill: str, notations: Sequence[Notation], image: bool) -> WorldLesson:
    """One lesson of a skill. Raises KeyError for an unknown skill."""
    if skill == "drill":
        return _drill(rng)
    notation = notations[int(rng.integers(len(notations)))]
    problem = _problem(rng, 1 if skill in ("single", "pick") else None)
    verb = "solve"
    match skill:
        case "solve":
            completion = trace(problem, notation)
        case "single":
            direct = len(notations) > 1 and rng.random() < 0.5
            completion = boxed(problem.answer) if direct else trace(problem, notation)
        case "guess":
            completion = boxed(problem.answer)
        case "read":
            verb, completion = "read", problem.symbols
        case "first":
            if notation == "tape":
                verb, completion = "hop", first_step(problem, "tape")
            else:
                verb, completion = "first", first_step(problem, "ledger")
        case "pick":
            value = int(rng.integers(10))
            letter = problem.letter(value) if problem.form == "choice" else str(value)
            options = problem.symbols.partition("?")[2]
            page = f"?{options}" if options else ""
            return WorldLesson("pick", f"[{value}{page}]pick{problem.tail}", boxed(letter))
        case _:
            raise KeyError(skill)
    name = f"{skill}-{notation}" if skill == "first" else skill
    if image:
        return WorldLesson(name, f"{verb}{problem.tail}", completion, problem)
    return WorldLesson(name, problem.text(verb), completion)


def lessons(
    rng: np.random.Generator, mix: Mix, count: int, notations: Sequence[Notation], image: bool = False
) -> list[WorldLesson]:
    """``count`` lessons drawn from a mix of skills."""
    names = [name for name, _ in mix]
    shares = np.array([share for _, share in mix])
    indices = rng.choice(len(names), count, p=shares / shares.sum())
    return [lesson(rng, names[index], notations, image) for index in indices]
