"""Values without eval, compared with floats from hand-written Python."""

from fractions import Fraction
from math import pi, sqrt

import pytest

from vold.answers import arithmetic, verify


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\pi", pi),
        (r"3\sqrt{2}-\frac{\sqrt{3}}{4}", 3 * sqrt(2) - sqrt(3) / 4),
        (r"\frac{1}{2}+\frac{\sqrt{3}}{3}", 0.5 + sqrt(3) / 3),
        (r"2(\sqrt{2}-1)^2", 2 * (sqrt(2) - 1) ** 2),
        (r"4\pi(3-2\sqrt{2})", 4 * pi * (3 - 2 * sqrt(2))),
        (r"\sqrt{\frac{1}{7}}/\pi", sqrt(1 / 7) / pi),
        (r"\sqrt{\pi}", sqrt(pi)),
    ],
)
def test_roots_and_pi_are_approximated_beyond_a_floats_precision(text: str, expected: float) -> None:
    value = arithmetic.approximation(text)
    assert value is not None and float(value) == pytest.approx(expected, rel=1e-15)
    assert arithmetic.value(text) is None


def test_an_approximation_keeps_40_digits() -> None:
    value = arithmetic.approximation(r"\sqrt{2}")
    assert value is not None and abs(value * value - 2) < Fraction(4, 10**40)


@pytest.mark.parametrize("text", [r"\sqrt[3]{8}", r"\frac{\pi}7", r"\sqrt2", r"\pi r", "x", "", r"\sqrt{-1}", "1/0"])
def test_a_text_that_is_not_a_well_formed_number_has_no_approximation(text: str) -> None:
    assert arithmetic.approximation(text) is None


def test_the_degree_of_a_root_is_not_a_factor() -> None:
    assert arithmetic.value(r"\sqrt[4]{16}") is None  # 2, and not 2 * 16
    assert verify(r"\boxed{\sqrt[4]{16}}", "2").correct


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"3.1416", r"\pi", False),
        (r"\frac{22}{7}", r"\pi", False),
        (r"24\pi", r"8\pi-16", False),
    ],
)
def test_irrational_numbers_are_equal_by_algebra_and_different_by_their_digits(
    answer: str, reference: str, same: bool
) -> None:
    assert verify(rf"\boxed{{{answer}}}", reference).correct is same
