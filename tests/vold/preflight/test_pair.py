"""Pairs that the trainer refuses before its first step. A teacher may have more tokens than the student, not others."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vold.models import LanguageModel, Student, load_teacher
from vold.preflight.pair import PairError, check_models


def test_tokens_of_the_teacher_alone_are_reported_and_unreachable(student: Student, teacher: LanguageModel) -> None:
    noted = {finding.id: finding.message for finding in check_models(student, teacher)}
    assert (
        "only the teacher has 2 tokens, which the student cannot emit ('<think>', '</think>')"
        in noted["tokenizers.teacher_only"]
    )
    assert set(teacher.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])) <= set(student.banned_ids)


def test_a_teacher_with_another_vocabulary_is_refused(
    student: Student, build_teacher: Callable[..., Path], build_tokenizer: Callable[..., object], tmp_path: Path
) -> None:
    other = build_teacher(tmp_path / "other", tokenizer=build_tokenizer(first=("shifted",)))
    with pytest.raises(
        PairError, match=r"another vocabulary .*id 0 is '!' in the student, 'shifted' in the .* tokenizer family"
    ):
        check_models(student, load_teacher(other))


def test_a_teacher_that_lacks_a_reachable_token_is_refused(
    student: Student, teacher: LanguageModel, build_tokenizer: Callable[..., object]
) -> None:
    richer = replace(student, tokenizer=build_tokenizer(extra=("<think>", "</think>", "§§")))
    with pytest.raises(
        PairError, match=r"1 of \d+ reachable ids differ \(id 265 is '§§' in the student, None in the teacher\)"
    ):
        check_models(richer, teacher)


def test_a_student_alone_is_checked_too(student: Student, build_tokenizer: Callable[..., object]) -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ messages[0].role }}<|im_start|>assistant\n"  # type: ignore[attr-defined]
    with pytest.raises(PairError, match="leaves out the user's text") as raised:
        check_models(replace(student, tokenizer=tokenizer))
    assert str(student.path) in str(raised.value)


def test_a_warning_is_logged_and_does_not_stop(
    student: Student, build_tokenizer: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = build_tokenizer()
    tokenizer.pad_token = None  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING):
        check_models(replace(student, tokenizer=tokenizer))
    assert "no pad token" in caplog.text and "set pad_token" in caplog.text
