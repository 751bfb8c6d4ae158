import time

import pytest

from vold.answers import spoken, verify


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("Answer: 4", "Answer: 4"),
        ("<think>maybe 3</think>Answer: 4", "Answer: 4"),
        ("maybe 3</think>Answer: 4", "Answer: 4"),  # the template has opened the thought
        ("Well. <think>maybe 3", "Well. "),
        ("<think>", ""),
        ("Answer: 4 <think>or 3?</think>", "Answer: 4 "),
        ("<think>a</think>So <think>b</think>4", "So 4"),
        ("<think>a <think>b</think> c</think>4", "4"),
        ("<think>a</think></think>4", "4"),
    ],
)
def test_thoughts_are_left_out_even_if_they_are_not_closed(response: str, text: str) -> None:
    assert spoken(response) == text


@pytest.mark.parametrize(
    ("response", "state"),
    [
        (r"<think>\boxed{3}</think> The answer is 4.", "right"),
        (r"<think>\boxed{4}</think> The answer is 3.", "wrong"),
        (r"<think>Surely \boxed{4}.</think>", "unparsed"),
        (r"<think>Surely \boxed{4}. Or", "unparsed"),
    ],
)
def test_an_answer_that_a_thought_declares_does_not_count(response: str, state: str) -> None:
    assert verify(response, "4").state == state


@pytest.mark.parametrize("hostile", ["<think>" * 300_000, "</think>" * 300_000, "x<think>y</think>" * 200_000])
def test_a_hundred_thousand_marks_take_less_than_a_second(hostile: str) -> None:
    start = time.perf_counter()
    spoken(hostile)
    assert time.perf_counter() - start < 1
