"""The pretraining curriculum of the small world: what its models learn before any experiment.

A teacher sees complete traces in its own notation. The base student learns to transcribe an image and to do steps:
the first step or the first two of a trace, drills of unconnected operations, one-operation problems, and the letter of
an answer. Every lesson draws its marks from those of both mirrored notations, in any role, so exchanging the marks of
the two leaves the curriculum as it is. Openings of traces have verbs of their own, which name the marks to use, and end
before a third step. Under ``solve``, the student sees only the answer of a problem of two or more operations, never the
reasoning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.smallworld.notation import Notation, boxed, marked_trace, opening, random_marks, trace
from bench.smallworld.problems import (
    FACTORS,
    MAX_OPERATIONS,
    MIN_OPERATIONS,
    Family,
    Form,
    Rule,
    WorldProblem,
    apply,
    draw_problem,
)

DRILLS = 6
OPENINGS = {"first": 1, "second": 2}
"""The skills of beginning a trace, with the number of their steps."""
Mix = Sequence[tuple[str, float]]

TEACHER_MIX: Mix = (("solve", 0.7), ("single", 0.3))
STUDENT_TEXT_MIX: Mix = (
    ("drill", 0.2),
    ("read", 0.18),
    ("first", 0.22),
    ("second", 0.2),
    ("single", 0.1),
    ("pick", 0.03),
    ("guess", 0.07),
)
STUDENT_IMAGE_MIX: Mix = (("read", 0.3), ("first", 0.2), ("second", 0.2), ("single", 0.17), ("guess", 0.13))


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


def _drill(rng: np.random.Generator, mark: str) -> WorldLesson:
    sums = []
    for _ in range(DRILLS):
        op = "+-*"[int(rng.integers(3))]
        left, right = int(rng.integers(10)), int(rng.choice(FACTORS) if op == "*" else rng.integers(10))
        sums.append((f"{left}{op}{right}", apply(left, op, right)))
    prompt = mark.join(text for text, _ in sums)
    return WorldLesson("drill", f"[{prompt}]drill", mark.join(f"{text}={value}" for text, value in sums))


def _pick(rng: np.random.Generator) -> WorldLesson:
    problem, value = _problem(rng, 1), int(rng.integers(10))
    options = problem.symbols.partition("?")[2]
    page = f"?{options}" if options else ""
    return WorldLesson("pick", f"[{value}{page}]pick{problem.tail}", boxed(problem.name_of(value)))


def teacher_lesson(rng: np.random.Generator, skill: str, notation: Notation, rule: Rule) -> WorldLesson:
    """A lesson of a teacher that computes by ``rule``: a trace of a problem, with one operation for ``single``."""
    problem = _problem(rng, 1 if skill == "single" else None)
    return WorldLesson(skill, problem.text(), trace(problem, notation, rule))


def student_lesson(rng: np.random.Generator, skill: str, image: bool) -> WorldLesson:
    """A lesson of the base student. Raises KeyError for an unknown skill."""
    marks = random_marks(rng)
    if skill == "drill":
        return _drill(rng, marks.step)
    if skill == "pick":
        return _pick(rng)
    problem = _problem(rng, 1 if skill == "single" else None)
    verb = "solve"
    match skill:
        case "single":
            completion = boxed(problem.answer) if rng.random() < 0.5 else marked_trace(problem, marks)
        case "guess":
            completion = boxed(problem.answer)
        case "read":
            verb, completion = "read", problem.symbols
        case "first" | "second":
            verb = f"{skill}{marks.restated}{marks.step}"
            completion = opening(problem, marks, OPENINGS[skill])
        case _:
            raise KeyError(skill)
    if image:
        return WorldLesson(skill, f"{verb}{problem.tail}", completion, problem)
    return WorldLesson(skill, problem.text(verb), completion)


def draw_skills(rng: np.random.Generator, mix: Mix, count: int) -> list[str]:
    """``count`` skills drawn from a mix."""
    names = [name for name, _ in mix]
    shares = np.array([share for _, share in mix])
    return [names[index] for index in rng.choice(len(names), count, p=shares / shares.sum())]


def student_lessons(rng: np.random.Generator, count: int, image: bool) -> list[WorldLesson]:
    """``count`` lessons of the base student, all as texts or all as images."""
    mix = STUDENT_IMAGE_MIX if image else STUDENT_TEXT_MIX
    return [student_lesson(rng, skill, image) for skill in draw_skills(rng, mix, count)]


def teacher_lessons(rng: np.random.Generator, count: int, notation: Notation, rule: Rule = apply) -> list[WorldLesson]:
    """``count`` lessons of a teacher."""
    return [teacher_lesson(rng, skill, notation, rule) for skill in draw_skills(rng, TEACHER_MIX, count)]
