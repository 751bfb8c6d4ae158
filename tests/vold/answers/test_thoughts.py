import time

import pytest

from vold.answers import spoken, verify


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Answer: 4", "Answer: 4"),
        ("<think>maybe 3</think>Answer: 4", "Answer: 4"),
        ("maybe 3</think>Answer: 4", "Answer: 4"),  # the template had opened the thought
        ("Well. <think>maybe 3", "Well. "),
        ("<think>", ""),
        ("Answer: 4 <think>or 3?</think>", "Answer: 4 "),
        ("<think>a</think>So <think>b</think>4", "So 4"),
        ("<think>a <think>b</think> c</think>4", "4"),
        ("<think>a</think></think>4", "4"),
    ],
)
def test_thoughts_are_left_out_closed_or_not(response: str, said: str) -> None:
    assert spoken(response) == said


@pytest.mark.parametrize(
    ("response", "state"),
    [
        (r"<think>\boxed{3}</think> The answer is 4.", "right"),
        (r"<think>\boxed{4}</think> The answer is 3.", "wrong"),
        (r"<think>Surely \boxed{4}.</think>", "unparsed"),
        (r"<think>Surely \boxed{4}. Or", "unparsed"),
    ],
)
def test_what_a_thought_declares_is_no_answer(response: str, state: str) -> None:
    assert verify(response, "4").state == state


@pytest.mark.parametrize("hostile", ["<think>" * 300_000, "</think>" * 300_000, "x<think>y</think>" * 200_000])
def test_millions_of_marks_take_no_time(hostile: str) -> None:
    start = time.perf_counter()
    spoken(hostile)
    assert time.perf_counter() - start < 1
