"""A transcription is right if it is the text of the image, and nothing else."""

import pytest

from vold.answers import verify_text


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("7+5-3", "7+5-3"),
        (" STOP \n\n here\t", "STOP here"),
        ("STOP here", "STOP\nhere"),
        (r"\boxed{STOP}", "STOP"),
        (r"It says \boxed{\text{No entry}}, I think.", "No entry"),
        (r"First \boxed{A}, no: \boxed{B}", "B"),
        (r"\boxed{f{x}}", "f{x}"),
        (r"\boxed{" + "a b " * 2000 + "}", "a b " * 2000),
        ("<think>STEP?</think>STOP", "STOP"),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_a_text_that_is_stated_exactly_is_right(response: str, answer: str) -> None:
    outcome = verify_text(response, answer)
    assert outcome.state == "right"
    assert outcome.normalised == " ".join(answer.split())


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("12", "7+5"),
        ("stop", "STOP"),
        ("STOP.", "STOP"),
        ("ST OP", "STOP"),
        ("Answer: STOP", "STOP"),
        ("The sign says STOP", "STOP"),
        (r"STOP \boxed{GO}", "STOP"),
        ("\u2460", "1"),
    ],
)
def test_any_other_text_is_wrong(response: str, answer: str) -> None:
    assert verify_text(response, answer).state == "wrong"


@pytest.mark.parametrize("response", ["", " \n", r"\boxed{ }", "<think>STOP"])
def test_a_response_without_text_is_unparsed(response: str) -> None:
    assert verify_text(response, "STOP").state == "unparsed"


def test_the_rule_is_part_of_the_answer() -> None:
    assert verify_text("STOP", "STOP").method == "lone"
    assert verify_text(r"\boxed{STOP}", "STOP").method == "boxed"
