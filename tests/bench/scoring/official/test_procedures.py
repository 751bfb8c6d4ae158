"""The published procedures' rules and faults, one by one."""

import pytest

from bench.records import AnswerKind, Prediction, Problem
from bench.scoring.official import PROCEDURES
from bench.scoring.official.mmmu_pro import find_letter

OPTIONS = dict(zip("ABCD", ("a cat", "a dog", "seven red birds", "nothing"), strict=True))


def judged(
    benchmark: str, answer: str, response: str, options: tuple[str, ...] = (), kind: AnswerKind = "free", **more
):
    problem = Problem(benchmark, "1", "", (), options, answer, kind, "1", precision=more.pop("precision", None))
    return PROCEDURES[benchmark](problem, Prediction("1", 0, response, **more))


@pytest.mark.parametrize(
    ("response", "letter", "rule"),
    [
        ("Answer: A or rather Answer: C", "C", "declared"),
        ("Answer: C, not (B)", "B", "brackets"),  # two letters after "Answer:", so the whole response is read again
        ("It is (A), or perhaps (D)", "D", "brackets"),
        ("A dramatic rise", "A", "letter"),
        ("A dramatic rise, so B or D ", "D", "letter"),
        ("because C.", "C", "letter"),  # the point is stripped from the end, and a blank put there
        ("x:B.y C.z", "B", "point"),  # looked up as " B ", found nowhere: the first
        ("there are seven red birds on a tree", "C", "text"),
        ("seven red birds", "", ""),  # not over five words
    ],
)
def test_mmmu_pro_parses_as_published(response: str, letter: str, rule: str):
    assert find_letter(response, OPTIONS) == (letter, rule)


def test_a_drawn_letter_is_declared_and_the_same_each_time():
    options = tuple(OPTIONS.values())
    rulings = [judged("mmmu_pro", "B", f"no idea {k}", options, "choice") for k in range(40)]
    assert {ruling.method for ruling in rulings} == {"guessed"}
    assert len({ruling.extracted for ruling in rulings}) == 4
    assert rulings == [judged("mmmu_pro", "B", f"no idea {k}", options, "choice") for k in range(40)]


@pytest.mark.parametrize(
    ("gold", "response", "outcome", "rule"),
    [
        ("1/60", r"\boxed{\frac{1}{55}}", "right", "rounded"),  # both are 0.02
        ("7", "the number of cats is 7.", "right", "text"),
        ("1", "1:1", "right", "rounded"),
        ("(3,-4)", "( 3.001 , -4 )", "right", "tuple"),
        ("120", r"$120^{\circ}$", "right", "text"),
        (r"$\boxed{18}$", "18", "wrong", "rule"),  # golds are not cleaned
        (r"2\pi", r"\boxed{6.283}", "right", "rounded"),
        ("3", "", "unparsed", "rule"),
    ],
)
def test_mathvision_compares_as_published(gold: str, response: str, outcome: str, rule: str):
    ruling = judged("mathvision", gold, response)
    assert (ruling.outcome, ruling.method) == (outcome, rule)


def test_mathvision_takes_a_letter_or_its_options_text():
    options = ("$12$", "$13$", "$14$", "$15$", "$16$")
    assert judged("mathvision", "B", "so we get (B).", options, "choice").outcome == "right"
    assert judged("mathvision", "B", r"\boxed{13}", options, "choice").outcome == "right"
    assert judged("mathvision", "B", r"\boxed{14}", options, "choice").outcome == "wrong"


@pytest.mark.parametrize(
    ("kind", "gold", "options", "extraction", "outcome"),
    [
        ("integer", "32", (), "32.5", "right"),  # truncated
        ("integer", "32", (), "thirty-two", "unparsed"),
        ("float", "1.2", (), "1.249", "right"),
        ("list", "[2014, 2016]", (), "[2014,2016]", "wrong"),
        ("choice", "No", ("Yes", "No"), "", "right"),  # the shorter text is nearer to nothing
        ("choice", "Yes", ("Yes", "No"), "(a) surely", "right"),
        ("choice", "blue", ("red", "blue"), "bleu", "right"),
    ],
)
def test_mathvista_normalises_as_published(
    kind: AnswerKind, gold: str, options: tuple[str, ...], extraction: str, outcome: str
):
    precision = 1 if kind == "float" else None
    ruling = judged("mathvista", gold, "whatever", options, kind, precision=precision, extraction=extraction)
    assert (ruling.outcome, ruling.method) == (outcome, "stored")


def test_mathvista_extracts_by_rule_and_says_so():
    assert judged("mathvista", "5", "5", kind="integer").method == "rule:number"
    assert judged("mathvista", "red", 'The answer is "red".', ("red", "blue"), "choice").method == "rule:quoted"
    assert judged("mathvista", "red", "Answer: A", ("red", "blue"), "choice").outcome == "right"


def test_logicvista_compares_sets_of_letters():
    assert judged("logicvista", "A, C", "", kind="choices", extraction="c, a").outcome == "right"
    assert judged("logicvista", "A, C", "", kind="choices", extraction="A").outcome == "wrong"
    assert judged("logicvista", "G", "", kind="choice", extraction="G").outcome == "unparsed"
    assert judged("logicvista", "3", "", kind="choice", extraction="3").outcome == "right"
    assert judged("logicvista", "", "", kind="choice", extraction="B").outcome == "wrong"
    assert judged("logicvista", "B", "The answer is B.", kind="choice") == judged("logicvista", "B", "B", kind="choice")
