"""Problems, notations and splits of the small world, checked by an independent evaluator."""

import re
from itertools import islice
from typing import get_args

import pytest

from bench.smallworld import prompts
from bench.smallworld.curriculum import NOTATIONS, STUDENT_IMAGE_MIX, STUDENT_TEXT_MIX, TEACHER_MIX, lessons
from bench.smallworld.notation import Notation, trace
from bench.smallworld.problems import HELD_OUT, MAX_OPERATIONS, MIN_OPERATIONS, WorldProblem, stream
from bench.smallworld.records import DATA_SEED, DATASETS
from vold.seeding import generator


def chain_value(chain: str) -> int:
    """The value of a chain, left to right modulo 10, computed independently of the generator."""
    value = int(chain[0])
    for operation, digit in zip(chain[1::2], chain[2::2], strict=True):
        value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operation] % 10
    return value


def sample(count: int = 300, split: str = "train") -> list[WorldProblem]:
    return list(islice(stream(5, "test", split), count))  # type: ignore[arg-type]


def test_answers_are_those_of_an_independent_evaluator() -> None:
    for problem in sample():
        value = chain_value(problem.chain)
        expected = str(value) if problem.form == "free" else problem.letter(value)
        assert problem.answer == expected


@pytest.mark.parametrize("notation", get_args(Notation))
def test_every_step_of_a_trace_is_true_and_the_end_is_the_answer(notation: str) -> None:
    for problem in sample():
        text = trace(problem, notation)  # type: ignore[arg-type]
        assert re.search(r"[.;]\\boxed\{" + problem.answer + r"\}$", text)
        if notation != "tape":
            steps = re.findall(r"(\d)([+*-])(\d)=(\d)", text)
            assert len(steps) == len(problem.operations)
            assert all(chain_value("".join(step[:3])) == int(step[3]) for step in steps)
        else:
            value = int(text[1])
            steps = re.findall(r"([+*-])(\d)#(\d)", text)
            assert len(steps) == len(problem.operations)
            for operation, digit, claimed in steps:
                value = chain_value(f"{value}{operation}{digit}")
                assert value == int(claimed)


def test_numbers_of_operations_and_answers_are_uniform() -> None:
    problems = list(islice(stream(6, "test", "train", None, "free"), 3000))
    lengths = [len(problem.operations) for problem in problems]
    for operations in range(MIN_OPERATIONS, MAX_OPERATIONS + 1):
        assert abs(lengths.count(operations) / 3000 - 1 / 7) < 0.03
    for digit in "0123456789":
        assert abs(sum(problem.answer == digit for problem in problems) / 3000 - 0.1) < 0.03


@pytest.mark.slow
def test_no_problem_of_an_evaluation_split_occurs_in_any_training_set() -> None:
    held_out = {
        problem.key
        for split in HELD_OUT.values()
        for dataset in DATASETS
        for problem in islice(stream(DATA_SEED, dataset.name, split, dataset.family, dataset.form), 300)
    }
    for name in prompts.SETS:
        trained = {problem.key for problem in islice(stream(prompts.DATA_SEED, name, "train"), 4000)}
        assert not trained & held_out
    rng = generator(9, "lessons")
    for mix, image in ((TEACHER_MIX, False), (STUDENT_TEXT_MIX, False), (STUDENT_IMAGE_MIX, True)):
        for lesson in lessons(rng, mix, 2000, NOTATIONS, image):
            chain = re.match(r"\[(\d(?:[+*-]\d){2,})[\]?]", lesson.prompt)
            shown = lesson.image.key if lesson.image else chain and chain.group(1)
            single = lesson.image is not None and len(lesson.image.operations) == 1
            assert single or shown not in held_out


def test_the_splits_partition_problems_by_their_content_alone() -> None:
    problem = sample(1)[0]
    twin = WorldProblem(problem.family, problem.digits, problem.operations, "free", problem.mode)
    other = WorldProblem(problem.family, problem.digits, problem.operations, "choice", problem.mode)
    assert twin.split == other.split == "train"


def test_the_base_student_is_never_shown_more_than_one_connected_step() -> None:
    rng = generator(10, "lessons")
    for mix, image in ((STUDENT_TEXT_MIX, False), (STUDENT_IMAGE_MIX, True)):
        for lesson in lessons(rng, mix, 2000, NOTATIONS, image):
            if lesson.skill != "drill":
                assert lesson.completion.count("=") <= 2 and lesson.completion.count("#") <= 2
                assert not re.search(r"=\d,", lesson.completion)
