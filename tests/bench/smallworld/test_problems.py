"""Problems, notations and splits of the small world, checked by an independent evaluator."""

import re
from collections import Counter
from itertools import islice
from typing import get_args

import pytest

from bench.smallworld import prompts
from bench.smallworld.curriculum import student_lessons, teacher_lessons
from bench.smallworld.notation import Notation, mark_pairs, mirrored, trace
from bench.smallworld.problems import HELD_OUT, MAX_OPERATIONS, MIN_OPERATIONS, WorldProblem, misread, stream
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
        assert re.search(r"[.;!]\\boxed\{" + problem.answer + r"\}$", text)
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
        assert abs(lengths.count(operations) / 3000 - 1 / (MAX_OPERATIONS - MIN_OPERATIONS + 1)) < 0.03
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
    training_sets = [prompt_set for prompt_set in prompts.PROMPT_SETS.values() if prompt_set.split == "train"]
    assert len(training_sets) >= 7
    for prompt_set in training_sets:
        trained = {problem.key for problem in islice(stream(prompts.DATA_SEED, prompt_set.stream, "train"), 4000)}
        assert not trained & held_out
    rng = generator(9, "lessons")
    texts, images = student_lessons(rng, 2000, image=False), student_lessons(rng, 2000, image=True)
    for lesson in [*teacher_lessons(rng, 2000, "ledger"), *texts, *images]:
        chain = re.match(r"\[(\d(?:[+*-]\d){2,})[\]?]", lesson.prompt)
        shown = lesson.image.key if lesson.image else chain and chain.group(1)
        single = lesson.image is not None and len(lesson.image.operations) == 1
        assert single or shown not in held_out


def test_the_splits_partition_problems_by_their_content_alone() -> None:
    problem = sample(1)[0]
    twin = WorldProblem(problem.family, problem.digits, problem.operations, "free", problem.mode)
    other = WorldProblem(problem.family, problem.digits, problem.operations, "choice", problem.mode)
    assert twin.split == other.split == "train"


def test_the_base_student_is_never_shown_a_third_step_nor_a_whole_solution() -> None:
    rng = generator(10, "lessons")
    for image in (False, True):
        for lesson in student_lessons(rng, 2000, image):
            steps = re.findall(r"\d[+*-]\d=\d", lesson.completion)
            if lesson.skill == "drill":
                continue
            assert len(steps) <= 2
            if "solve" in lesson.prompt:
                assert len(steps) <= 1
            if len(steps) == 2:
                assert "boxed" not in lesson.completion


def test_the_ledger_and_the_mirror_exchange_their_marks_and_nothing_else() -> None:
    for problem in sample():
        ledger = trace(problem, "ledger")
        assert mirrored(ledger) == trace(problem, "mirror") != ledger
        assert mirrored(mirrored(ledger)) == ledger
        assert re.sub(r"[:,;.]", "", ledger) == re.sub(r"[#|@!]", "", trace(problem, "mirror"))


def test_base_lessons_use_every_mark_equally_often_in_every_role() -> None:
    marks = [mark for pair in mark_pairs() for mark in pair]
    for image in (False, True):
        lessons = student_lessons(generator(11, "lessons"), 20000, image)
        for skill, pattern in (
            ("first", r"[0-9+*-]+(\D)\d[+*-]\d=\d$"),
            ("second", r"[0-9+*-]+\D\d[+*-]\d=\d(\D)\d[+*-]\d=\d$"),
            ("single", r"\d[+*-]\d\D\d[+*-]\d=\d(?:\D\d=[A-J])?(\D)\\boxed"),
        ):
            used = Counter(
                match[1]
                for lesson in lessons
                if lesson.skill == skill and (match := re.match(pattern, lesson.completion))
            )
            mean = used.total() / len(marks)
            assert mean > 50
            assert set(used) == set(marks)
            assert all(abs(used[mark] - mean) < 5 * mean**0.5 for mark in marks)


def test_an_opening_uses_the_marks_that_its_prompt_names() -> None:
    for lesson in student_lessons(generator(12, "lessons"), 3000, image=False):
        if lesson.skill in ("first", "second"):
            named = re.search(r"(?:first|second)(\D)(\D)", lesson.prompt)
            assert named is not None
            restated, _, rest = lesson.completion.partition(named[1])
            assert re.fullmatch(r"[0-9+*-]+", restated)
            assert len(rest.split(named[2])) == {"first": 1, "second": 2}[lesson.skill]


def test_a_teacher_that_misreads_is_right_in_about_six_of_ten_traces() -> None:
    problems = sample(3000)
    traces = [trace(problem, "ledger", misread) for problem in problems]
    right = sum(text.endswith(f"\\boxed{{{p.answer}}}") for text, p in zip(traces, problems, strict=True))
    assert 0.5 < right / len(problems) < 0.7
    for text, problem in zip(traces, problems, strict=True):
        for left, operation, digit, value in re.findall(r"(\d)([+*-])(\d)=(\d)", text):
            assert int(value) == chain_value(f"{left}{operation}{digit.replace('7', '1')}")
        assert text.startswith(problem.chain)
