"""Why two verdicts differ, on rows of which both procedures were followed by hand."""

from typing import Any

import pytest

from bench.bridges.reasons import MEANING, Reason, Theirs, reason
from bench.records import AnswerKind, Prediction, Problem
from bench.scoring.scorer import Mode, score_predictions

PRO, VISION, VISTA = "mmmu_pro", "mathvision", "mathvista"
LENGTHS = ("1 cm", "2 cm")
PETS = ("cat", "dog", "cow")


def problem(benchmark: str, answer: str, kind: AnswerKind, options: tuple[str, ...] = (), **more: Any) -> Problem:
    return Problem(benchmark, "1", "Which?", (), options, answer, kind, "1", **more)


@pytest.mark.parametrize(
    ("item", "response", "stored", "mode", "theirs", "expected"),
    [
        (problem(VISION, "7", "integer"), "Answer: 7", None, "strict", Theirs("", None), "judge"),
        (problem(VISION, "7", "integer"), "7", None, "strict", Theirs("7", True), None),
        (problem(PRO, "A", "choice", PETS), "No idea", None, "official", Theirs("Z", None), "judge"),
        (problem(VISION, "1/60", "free"), r"\boxed{1/55}", None, "official", Theirs("x", False), "rounded"),
        (problem(VISION, r"\frac{3^{40}-1}{3^{41}}", "free"), "1/3", None, "strict", Theirs("1/3", True), "tolerance"),
        (problem(VISTA, "[2014, 2016]", "list"), "[2014, 2016]", None, "strict", Theirs("None", False), "several"),
        (problem(VISTA, "cat", "choice", PETS), "?", "N/A", "official", Theirs("N/A", False), "nearest"),
        (problem(VISTA, "1.5", "float", precision=1), "1.46", None, "strict", Theirs("1.46", False), "precision"),
        (problem(VISTA, "2", "integer"), "2 dots in 1 row", "2", "strict", Theirs("2", True), "undeclared"),
        (problem(PRO, "B", "choice", PETS), "Answer: A or B", None, "strict", Theirs("B", True), "ambiguous"),
        (problem(PRO, "B", "choice", PETS), "(B). Answer: A", None, "strict", Theirs("B", True), "extraction"),
        (problem(PRO, "B", "choice", PETS), r"Answer: \text{B}", None, "strict", Theirs("Z", False), "not_found"),
        (problem(VISTA, "cat", "choice", ("cat", "dog", "cat")), "C", None, "strict", Theirs("C", False), "same_texts"),
        (problem(VISION, "dog", "choice", PETS), "B", None, "strict", Theirs("B", False), "gold_text"),
        (problem(VISION, "B", "choice", LENGTHS), r"2\mathrm{~cm}", None, "official", Theirs("B", True), "spelling"),
        (problem("logicvista", "3", "choice"), "3", None, "strict", Theirs("", False), "not_found"),
        (problem(VISION, r"\boxed{3}", "integer"), "3", None, "strict", Theirs("3", False), "spelling"),
        (problem(PRO, "B", "choice", PETS), "B", None, "strict", Theirs("B", False), "unexplained"),
    ],
)  # fmt: skip
def test_the_first_reason_that_holds_is_given(
    item: Problem, response: str, stored: str | None, mode: Mode, theirs: Theirs, expected: Reason | None
) -> None:
    (verdict,) = score_predictions(item.benchmark, [item], [Prediction("1", 0, response, stored)], mode).verdicts
    assert reason(item, verdict, theirs) == expected


def test_a_drawn_letter_is_guessed() -> None:
    item = problem(PRO, "A", "choice", PETS)
    drawn = score_predictions("mmmu_pro", [item], [Prediction("1", k, "No idea") for k in range(20)], "official")
    right = next(verdict for verdict in drawn.verdicts if verdict.correct)
    assert reason(item, right, Theirs("Z", False)) == "guessed"


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANING) == set(Reason.__args__)  # type: ignore[attr-defined]
