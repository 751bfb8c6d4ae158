"""Numbers as text: rounding, signs and absent values."""

import math

import pytest

from bench.report import numbers


@pytest.mark.parametrize(
    ("value", "text"), [(0.023, "+2.3"), (-0.023, "-2.3"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")]
)
def test_a_difference_has_a_sign_unless_it_rounds_to_zero(value, text):
    assert numbers.points(value) == text


def test_shares_become_per_cent():
    assert numbers.percent(0.5234) == "52.3"
    assert numbers.interval(0.004, 0.042, signed=True) == "[+0.4, +4.2]"


def test_a_p_value_is_never_zero():
    assert numbers.p_value(1e-12) == "<0.001"
    assert numbers.p_value(0.0312) == "0.031"


def test_a_value_that_is_not_finite_is_shown_as_absent():
    assert numbers.decimal(math.nan) == numbers.NONE
    assert numbers.percent(math.inf) == numbers.NONE


def test_rounding_errors_do_not_decide_a_tie():
    assert numbers.percent(0.5875 - 1e-16) == numbers.percent(0.5875) == numbers.percent(0.5875 + 1e-16)
