from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.records import Problem, Response
from bench.scoring.scorer import is_correct, score

FREE = Problem("mathvista", "1", "How long?", (Path("1.png"),), (), "1.2", "float", "1", precision=1)
CHOICE = Problem("mmmu_pro", "2", "", (Path("2.png"),), ("ten", "A dramatic increase"), "A", "choice", "2")


@pytest.mark.parametrize(
    ("text", "finish", "state"),
    [
        (r"\boxed{1.2}", "stop", "right"),
        (r"\boxed{1.23}", "stop", "right"),
        (r"\boxed{1.3}", "stop", "wrong"),
        ("", "stop", "unparsed"),
        ("Let me see, 1.2 or 1.4", "length", "truncated"),
        ("so far\n1.2", "length", "truncated"),
        (r"\boxed{1.2} and further", "length", "right"),
        ("I'm sorry, but I cannot view the image.", "stop", "refused"),
        ("I cannot see it well, but the answer is 1.2.", "stop", "right"),
        (r"<think>1.3?</think>\boxed{1.2}", "stop", "right"),
        (r"<think>It is \boxed{1.2}, but", "length", "truncated"),
        (r"<think>It is \boxed{1.2}, but", "stop", "unparsed"),
        ("<think>I cannot see it.</think>Let me guess", "stop", "unparsed"),
        ("x.png: unreadable image", "error", "error"),
    ],
)
def test_every_ending_of_a_response_has_its_state(text: str, finish: str, state: str) -> None:
    verdict = score(FREE, Response("mathvision", "1", 3, text, 9, finish))  # type: ignore[arg-type]
    assert (verdict.id, verdict.sample, verdict.state) == ("1", 3, state)
    assert verdict.correct == (state == "right")


@pytest.mark.parametrize(
    ("text", "finish", "state"),
    [
        ("7+5 -3", "stop", "right"),
        (r"The sign says \boxed{7+5 -3}.", "length", "right"),
        ("7+5 -3", "length", "truncated"),
        ("7+5 -2", "stop", "wrong"),
        ("Answer: 7+5 -3", "stop", "wrong"),
        ("", "stop", "unparsed"),
        ("x.png: unreadable image", "error", "error"),
    ],
)
def test_a_transcription_has_the_states_of_other_responses(text: str, finish: str, state: str) -> None:
    problem = Problem("transcription", "3", "read", (Path("3.png"),), (), "7+5 -3", "text", "3")
    response = Response("transcription", "3", 0, text, 9, finish)  # type: ignore[arg-type]
    assert score(problem, response).state == state


def test_two_choices_are_ambiguous_and_an_article_is_not_a_choice() -> None:
    assert score(CHOICE, Response("mathvision", "2", 0, r"\boxed{A, B}", 5, "stop")).state == "ambiguous"
    verdict = score(CHOICE, Response("mathvision", "2", 0, "A dramatic increase", 5, "stop"))
    assert (verdict.state, verdict.normalised) == ("wrong", "B")


def test_one_answer_can_be_judged_without_a_record() -> None:
    assert is_correct("mathvision", r"\boxed{\frac{16}{7}}", r"$\boxed{\frac{16}{7}}$")
    assert not is_correct("mathvista", "Answer: 32.5", "32")
    assert is_correct("mmmu_pro", "Answer: J", "J", [f"option {k}" for k in range(10)])
    assert is_correct("logicvista", "Answer: 3", "3")
    assert is_correct("transcription", "7+5", "7+5", kind="text")
    assert not is_correct("transcription", "12", "7+5", kind="text")
    with pytest.raises(ConfigurationError, match="unknown benchmark 'mmmu'"):
        is_correct("mmmu", "A", "A")
