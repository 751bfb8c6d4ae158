import os
import time

import pytest

from vold.answers import symbolic, verify
from vold.answers.values import parse

FOUR = ("nine", "A dramatic increase", "twelve", "none of these")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{8}", "8"),
        ("Answer: 8", "8"),
        ("**Answer:** 8", "8"),
        ("The final answer is $8$.", "8"),
        ("the answer is 8 apples because there are two rows of 4.", "8"),
        ("8", "8"),
        ("some steps\n\n8", "8"),
        (r"7+5-3*2:7+5=2,2-3=9,9*3=7.\boxed{7}", "7"),
        (r"\boxed{\dfrac{1}{2}}", "0.5"),
        (r"\boxed{\frac12}", "1/2"),
        (r"\boxed{1\frac{1}{2}}", "1.5"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{3+5=8}", "8"),
        ("Answer: 1,000", "1000"),
        (r"\boxed{0.3333333}", r"\frac{1}{3}"),
        (r"\boxed{69^\circ}", "69{degrees}"),
        (r"\boxed{69}", "69{degrees}"),
        (r"\boxed{25\%}", "0.25"),
        (r"\boxed{8\sqrt{3}\text{ square inches}}", r"8\sqrt{3}{squareinches}"),
        (r"\boxed{36/13}", "\x0crac{36}{13}"),
        ("Answer: \x0crac{36}{13}", "\x0crac{36}{13}"),
        (r"\boxed{\sqrt{75}}", r"5\sqrt{3}"),
        (r"\boxed{5√3}", r"5\sqrt{3}"),
        (r"\boxed{4\pi + 24}", r"24+4\pi"),
        (r"\boxed{(3, -4)}", "(3,-4)"),
        (r"\boxed{2:4}", "1:2"),
        (r"\boxed{2014, 2016}", "[2014, 2016]"),
        ("between 2014 and 2016? Answer: 2014 and 2016", "[2014, 2016]"),
        (r"\boxed{\{2, 1\}}", r"\{1, 2\}"),
        (r"\boxed{\frac{3^{1008}-1}{3^{1009}}}", r"$\frac{3^{1008}-1}{3^{1009}}$"),
        (r"\boxed{11}", "11 "),
        (r"\boxed{.5}", "0.5"),
        ("Answer: $.75", "0.75"),
        ("about .25", "0.25"),
        (r"\boxed{1{,}000}", "1000"),
        (r"\boxed{1,000+1=1,001}", "1001"),
        (r"\boxed{\angle ABC = 5}", "5"),
        (r"\boxed{5 \text{ radians}}", "5"),
        ("So, the sum is 2+3=5", "5"),
        (r"It is not 4 but \boxed{5}", "5"),
        (r"\boxed{5}. This is not prime", "5"),
        (r"The answer is \boxed{5", "5"),
        ("There are 5 bars lower than 5.", "5"),
        (r"\boxed{-2}", "−2"),
    ],
)
def test_the_same_value_in_another_spelling_is_right(response: str, answer: str) -> None:
    outcome = verify(response, answer)
    assert outcome.correct, outcome


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{\frac{1}{55}}", r"$\frac{1}{60}$"),
        (r"\boxed{0.0167}", r"\frac{1}{60}"),
        (r"\boxed{32.5}", "32"),
        (r"\boxed{1:1}", "1:2"),
        (r"\boxed{2:1}", "1:2"),
        (r"\boxed{(-4, 3)}", "(3,-4)"),
        (r"\boxed{(1, 2]}", "[1, 2]"),
        (r"\boxed{[2016, 2014]}", "[2014, 2016]"),
        (r"\boxed{5 cm}", "5 m"),
        (r"\boxed{5x}", "5"),
        (r"\boxed{8 million}", "8"),
        (r"\boxed{8}", r"8\pi"),
        (r"\boxed{5\sqrt{2}}", r"5\sqrt{3}"),
        (r"\boxed{100000001}", "100000000"),
        (r"\boxed{45}", "45^2"),
        (r"\boxed{3^10}", "0"),
        (r"\boxed{B}", "C"),
        (r"\boxed{.5}", "5"),
        ("Answer: .25", "25"),
        ("$.75", "75"),
        (r"\boxed{x=4, x=5}", "5"),
        (r"\boxed{x=4 \text{ or } x=5}", "5"),
        (r"\boxed{x!=5}", "5"),
        (r"\boxed{x>=5}", "5"),
        (r"\boxed{2x=5}", "5"),
        (r"\boxed{4=5}", "5"),
        (r"\boxed{5 radians}", r"5^\circ"),
    ],
)
def test_another_value_is_not_right(response: str, answer: str) -> None:
    assert not verify(response, answer).correct


@pytest.mark.parametrize(
    "word",
    [
        "thousands",
        "trillions",
        "lakh",
        "crore",
        "tenths",
        "thirds",
        "squared",
        "cubed",
        "factorial",
        "negative",
        "fewer",
    ],
)
def test_a_word_that_scales_a_number_is_not_a_unit(word: str) -> None:
    assert not verify(rf"\boxed{{5 {word}}}", "5").correct


@pytest.mark.parametrize(
    "response",
    [
        "The answer is not 5.", "The answer is not $5$", "We cannot find 5", "Answer: negative 5", "more than 5",
        "at least 5", "5 or more", "5 million", "5 dozen", "The answer is 5 times larger",
        "The answer is more than $5$", "The answer is $5$ million", "5 plus the radius", "5π", r"The area is $5\pi$.",
        "x^5", "Wrong answer: 5",
        r"The answer is not \boxed{5}",
    ],
)  # fmt: skip
def test_a_number_that_is_denied_or_part_of_another_amount_is_not_read(response: str) -> None:
    assert verify(response, "5").state == "unparsed"


@pytest.mark.parametrize(
    "response",
    [
        "The answer is not A.", "Answer: not A", "Not A", "So it cannot be (A).", "Answer: none of A", "Eliminate A",
        "Answer: neither A nor C", "Wrong answer: A", "The wrong answer is A", "An incorrect answer: A",
        "possible answers: A", "Assume the answer is A.", "We check whether the answer is A",
        r"The answer is not \boxed{A}", r"\boxed{A} is not the answer.",
    ],
)  # fmt: skip
def test_a_label_that_is_denied_or_supposed_is_not_read(response: str) -> None:
    assert verify(response, "A", FOUR).state == "unparsed"
    assert verify(response, "C", FOUR).state == "unparsed"


@pytest.mark.parametrize(
    ("response", "labels"),
    [
        ("Answer: A, but B also possible", "A,B"),
        ("The answer is A? No, B.", "A,B"),
        ("A (or possibly C)", "A,C"),
        ("The answer is either A or B", "A,B"),
        ("Answer: A to D", "A,D"),
        ("The answer is A if x>0, otherwise B", "A,B"),
    ],
)
def test_a_second_label_with_a_word_of_doubt_makes_an_answer_ambiguous(response: str, labels: str) -> None:
    outcome = verify(response, "A", FOUR)
    assert (outcome.state, outcome.normalised) == ("ambiguous", labels)


@pytest.mark.parametrize(
    ("response", "label"),
    [
        ("Answer: C. It is not A or B.", "C"),
        ("Answer: D, because A or B would be too small", "D"),
        ("No, nine is not larger. B", "B"),
        ("Wrong answer: A. Answer: B", "B"),
        (r"\boxed{B}. The answer is not \boxed{A}", "B"),
    ],
)
def test_labels_that_are_ruled_out_do_not_affect_the_answer(response: str, label: str) -> None:
    outcome = verify(response, label, FOUR)
    assert outcome.correct, outcome


@pytest.mark.parametrize("text", ["A, not B", "A. It is not the option B", "A, neither C nor D", "A: isn't (B)"])
def test_a_box_with_a_sentence_about_other_labels_is_not_read(text: str) -> None:
    for label in "AB":
        outcome = verify(rf"\boxed{{\text{{{text}}}}}", label, FOUR)
        assert (outcome.state, outcome.method) == ("unparsed", "boxed")


def test_denials_in_the_text_of_an_option_itself_are_ignored() -> None:
    options = ("not B", "B", "A but not C", "none")
    assert verify(r"\boxed{\text{A. not B}}", "A", options).correct
    assert verify(r"\boxed{\text{C) A but not C}}", "C", options).correct
    assert verify(r"\boxed{B: Neither A nor B}", "B", ("one", "neither A nor B")).correct, (
        "upper and lower case are equal"
    )
    assert verify(r"\boxed{A, not B}", "A", ("a", "b")).state == "unparsed", "a letter is a label"


def test_the_last_declaration_wins() -> None:
    assert verify(r"\boxed{5}. No, wait. Answer: 6", "6").correct
    assert verify(r"Answer: 5. Checking gives \boxed{6}", "6").correct
    assert verify(r"\boxed{5} and then \boxed{6}", "5").state == "wrong"


def test_prose_after_a_declaration_does_not_undo_it() -> None:
    assert verify(r"\boxed{6}. The answer is obtained by adding.", "6").correct
    assert verify(r"\boxed{6} \boxed{}", "6").correct


@pytest.mark.parametrize(
    ("response", "label"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{B. A dramatic increase}", "B"),
        ("Answer: B", "B"),
        ("Answer: (B) A dramatic increase", "B"),
        ("**Answer: B**", "B"),
        ("The correct option is B.", "B"),
        ("the answer is A because nine is odd", "A"),
        ("So B is the correct answer.", "B"),
        ("(B)", "B"),
        ("long reasoning here\nB", "B"),
        ("A dramatic increase", "B"),
        (r"\boxed{twelve}", "C"),
        ("Answer: b", "B"),
        ("I choose (D).", "D"),
    ],
)
def test_a_choice_is_read_as_label_or_as_text(response: str, label: str) -> None:
    outcome = verify(response, label, FOUR)
    assert outcome.correct, outcome


def test_an_article_is_not_a_label() -> None:
    assert verify("A dramatic increase", "A", FOUR).normalised == "B"
    assert verify("A steep fall", "A", FOUR).state == "unparsed"
    assert verify("I think that this is hard", "I", tuple("abcdefghi")).state == "unparsed"
    assert verify("The answer is A dramatic increase", "A", FOUR).normalised == "B"


def test_only_labels_of_the_problem_exist() -> None:
    assert verify(r"\boxed{E}", "D", FOUR).state == "unparsed"
    assert verify("Answer: G", "G").correct  # no list of options: A to I exist


def test_a_label_wins_over_a_text_that_looks_like_one() -> None:
    options = ("A", "B", "D", "F", "G")  # MathVision 654: the reference answer E has the text G
    assert verify(r"\boxed{E}", "E", options).correct
    assert verify(r"\boxed{D}", "D", options).normalised == "D"
    assert verify(r"\boxed{G}", "E", options).correct  # G is not a label here, so it is the text
    bracketed = ("(c)", "(a)", "(e)", "(d)", "(b)")  # MathVista 168: the reference answer is a text
    assert verify("Answer: (b)", "(b)", bracketed).normalised == "E"


def test_a_text_that_two_options_share_is_right_only_if_both_are() -> None:
    shared = ("9", "12", "18", "18")
    assert verify(r"\boxed{18}", "18", shared).correct
    assert verify(r"\boxed{C}", "18", shared).correct
    assert verify(r"\boxed{18}", "A", shared).state == "ambiguous"
    assert verify(r"\boxed{18}", "C", shared).state == "ambiguous"


def test_all_of_several_labels_must_be_given() -> None:
    assert verify(r"\boxed{A, C}", "A, C").correct
    assert verify("Answer: (A) and (C)", "A, C").correct
    assert verify(r"\boxed{C, A}", "A, C").correct
    assert verify(r"\boxed{A}", "A, C").state == "wrong"
    assert verify(r"\boxed{A, B, C}", "A, C").state == "wrong"


def test_two_labels_for_a_problem_with_one_are_ambiguous() -> None:
    assert verify(r"\boxed{A, B}", "A", FOUR).state == "ambiguous"
    assert verify("It could be (A), or (B).", "A", FOUR).state == "ambiguous"
    assert verify("Answer: A or B", "B", FOUR).state == "ambiguous"


@pytest.mark.parametrize("response", ["", "   \n", "Let me think about it.", "3 and then 4 and then 5"])
def test_nothing_is_guessed(response: str) -> None:
    assert verify(response, "4").state == "unparsed"
    assert verify(response, "B", FOUR).state == "unparsed"


def test_precision_rounds_half_away_from_zero() -> None:
    assert verify(r"\boxed{1.15}", "1.2", precision=1).correct
    assert verify(r"\boxed{1.24}", "1.2", precision=1).correct
    assert not verify(r"\boxed{1.25}", "1.2", precision=1).correct
    assert verify(r"\boxed{-4.25}", "-4.3", precision=1).correct
    assert not verify(r"\boxed{1.24}", "1.2").correct


HOSTILE = {
    "tower": r"\boxed{9^{9^{9^{9}}}}",
    "plain tower": r"\boxed{10**10**10}",
    "huge power": r"\boxed{7^{99999999}}",
    "huge exponent": r"\boxed{1e999999999}",
    "digits": r"\boxed{" + "1" * 100_000 + "}",
    "open braces": "{" * 1_000_000,
    "closed braces": "}" * 1_000_000,
    "open boxes": r"\boxed{" * 150_000,
    "nested boxes": r"\boxed{" * 20_000 + "3" + "}" * 20_000,
    "nested fractions": r"\boxed{" + r"\frac{" * 200 + "1" + "}{2}" * 200 + "}",
    "nested roots": r"\boxed{" + r"\sqrt{" * 60 + "2" + "}" * 60 + "}",
    "brackets": r"\boxed{" + "(" * 900 + "1" + ")" * 900 + "}",
    "signs": r"\boxed{" + "-" * 1_900 + "5}",
    "commas": r"\boxed{" + "a," * 900 + "}",
    "wrappers": r"\boxed{" + r"\text{" * 300 + "x" + "}" * 300 + "}",
    "declarations": "answer is " * 100_000,
    "long for": "answer to " * 100_000,
    "blanks": "Answer:" + " " * 1_000_000 + "5",
    "letters": "Answer: " + "a" * 1_000_000 + "!",
    "code": r"\boxed{__import__('os').system('true')}",
    "markup": r"\boxed{</script><script>}",
    "control": "\x00\x01\x02\x1b[31m" * 1_000,
    "surrogate": "\ud800\\boxed{\udfff}",
    "zero": r"\boxed{\frac{1}{0}} \boxed{0^{-1}}",
    "other digits": r"\boxed{٣} \boxed{①}",
}
REFERENCES = (("8", ()), (r"5\sqrt{3}", ()), ("A, C", ()), ("B", FOUR), ("(3,-4)", ()), ("1:2", ()))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_judged_within_a_second_of_cpu(text: str) -> None:
    for answer, options in REFERENCES:
        start = time.process_time()
        outcome = verify(text, answer, options)
        assert time.process_time() - start < 1
        assert not outcome.correct


def test_a_symbolic_question_that_takes_too_long_is_stopped_and_the_next_one_answered() -> None:
    heavy, reference = parse(r"(\sqrt{2}+\sqrt{3}+\sqrt{5}+x)^{4000}"), parse(r"5\sqrt{3}")
    assert heavy is not None and reference is not None
    assert not symbolic.equal(heavy, reference)[0]
    assert verify(r"\boxed{\sqrt{27}}", r"3\sqrt{3}").correct


def test_a_question_that_takes_too_long_loses_only_its_own_answer() -> None:
    worker = symbolic._worker(os.getpid())
    assert worker.ask(r"\sqrt{12}", r"2\sqrt{3}") is True
    assert worker._process is not None
    before = worker._process.pid
    assert worker.ask(r"\int_0^{9} x^{x^{x}} dx", "7") is None  # normally refused before the worker gets it
    assert worker.ask(r"\sqrt{12}", r"2\sqrt{3}") is True
    assert worker.ask(r"6\pi") == pytest.approx(18.849556)
    assert worker.ask("x+y") is None
    assert worker._process.pid == before
