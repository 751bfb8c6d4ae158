"""A teacher may know more tokens than the student, never other ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vold.models import LanguageModel, Student, check_pair, load_teacher
from vold.models.pair import PairError


def test_tokens_of_the_teacher_alone_are_reported_and_unreachable(student: Student, teacher: LanguageModel) -> None:
    report = check_pair(student, teacher)
    assert report.teacher_only == ("<think>", "</think>")
    assert report.reachable == len(student.tokenizer.get_vocab()) - 2
    assert set(teacher.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])) <= set(student.banned_ids)


def test_a_teacher_with_another_vocabulary_is_refused(
    student: Student, build_teacher: Callable[..., Path], build_tokenizer: Callable[..., object], tmp_path: Path
) -> None:
    other = build_teacher(tmp_path / "other", tokenizer=build_tokenizer(first=("shifted",)))
    with pytest.raises(PairError, match=r"another vocabulary .*id 0 is '!' here, 'shifted' there; .* tokenizer family"):
        check_pair(student, load_teacher(other))


def test_a_teacher_that_lacks_a_reachable_token_is_refused(
    student: Student, teacher: LanguageModel, build_tokenizer: Callable[..., object]
) -> None:
    richer = replace(student, tokenizer=build_tokenizer(extra=("<think>", "</think>", "§§")))
    with pytest.raises(PairError, match=r"1 of \d+ reachable ids differ \(id 265 is '§§' here, None there\)"):
        check_pair(richer, teacher)


def test_a_teacher_with_fewer_output_rows_than_tokens_is_refused(student: Student, teacher: LanguageModel) -> None:
    class Short:
        path, tokenizer, head = teacher.path, teacher.tokenizer, teacher.head[:100]

    with pytest.raises(PairError, match="100 output rows"):
        check_pair(student, Short())  # type: ignore[arg-type]
