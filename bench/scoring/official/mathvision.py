r"""MathVision's extraction and comparison (MATH-V, evaluation/evaluate.py).

Faults that are kept: a short cut looks for letters at the ends of the response; everything is lower case; spaces and a
few units vanish, others stay; two values are equal when both round to the same two decimals (1/60 and 1/55 are); golds
are cleaned by none of this, so that those in a box, with a degree sign or with a symbol can never be met.

The published comparison hands both sides to a LaTeX parser and evaluates what comes out as code. Here a value is
computed by ``vold.answers.arithmetic``; what that does not know goes to the killable symbolic worker.
"""

import re
from collections import Counter

from bench.records import Prediction, Problem
from bench.scoring.official.base import Ruling
from vold.answers import arithmetic, symbolic

_LETTERS = "ABCDE"
_FLAGS = ("the final answer is", "the answer is", "the correct answer is", "the answer should be")
_BOXED = re.compile(r"oxed{(.*)}", re.DOTALL)
_DROPPED = (
    r"\%", r"\$", r"\!", r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ",
    "{m}^3", "m^3", "{units}", "units", "{km}", "km",
)  # fmt: skip
_UNKNOWN = re.compile(r"\\circ|\\mathrm|\\boxed|\\!|%|[^\x00-\x7f]")
_DIVISION = re.compile(":")
_PRODUCT = re.compile(r"\\(?:times|cdot)(?![a-z])")
_COMMANDS = re.compile(r"\\(?:frac|sqrt|pi|theta|times|cdot)(?![a-z])")
_MAY_VANISH = re.compile(r"[\\0'|<>=-]|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|inf|deg|mod|max|min|det|gcd|lcm|nan")
_SYMBOLS = frozenset("abcfghjklmnopqrstuvwxyz")
"""d may be a differential, e and i are numbers."""
_END_OF_SENTENCE = re.compile(r"\.(?!\d)")
_LONGEST = 20_000
"""Characters that are looked at, from the end: hostile megabytes must not cost minutes."""


def score_mathvision(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    answer = extract_mathvision(prediction.response) if stored is None else stored.strip()
    golds = [problem.answer]
    if problem.options:
        place = ord(problem.answer) - ord("A") if len(problem.answer) == 1 else -1
        golds.append(problem.options[place] if 0 <= place < len(problem.options) else "")
    if not answer.strip():
        return Ruling("unparsed", answer, "rule" if stored is None else "stored")
    rules = [rule for gold in golds if (rule := _equal(answer, gold))]
    return Ruling.of(bool(rules), answer, rules[0] if rules else "rule" if stored is None else "stored")


def extract_mathvision(response: str) -> str:
    """The answer in the published spelling."""
    answer = response.strip()[-_LONGEST:]
    for letter in _LETTERS:
        ends = (f" {letter}.", f" ({letter}).")
        starts = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if answer.endswith(ends) or answer.startswith(starts):
            answer = letter
    number = answer.rpartition("is ")[2].rstrip(".")
    if _is_number(number):
        answer = number
    if "oxed{" not in answer:
        answer = _after_flags(answer)
    elif answer.count("oxed{") > 1:
        answer = r"\boxed{" + answer.rpartition("oxed{")[2]
    answer = _cleaned(answer)
    for letter in _LETTERS.lower():
        answer = answer.replace(f"({letter})", letter).replace(f"{{{letter}}}", letter)
    return answer.rstrip(".").lstrip(":").strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _after_flags(answer: str) -> str:
    for flag in _FLAGS:
        for spelling in (flag, flag.replace("the", "The")):
            found = spelling in answer
            answer = answer.rpartition(spelling)[2].strip()
            if found:
                answer = answer.partition("\n")[0].partition(". ")[0]
    return answer


def _cleaned(text: str) -> str:
    text = text.lower().replace("{}", "")
    boxed = _BOXED.findall(text)
    answer = boxed[-1] if boxed else text
    closing, opening = answer.find("}"), answer.find("{")
    if closing != -1 and (opening == -1 or closing < opening):
        answer = answer[:closing]
    answer = answer.rpartition("=")[2].rpartition(r"\approx")[2]
    answer = answer.replace(" ", "").replace(r"\,", "").replace("∞", r"\infty").replace(r"+\infty", r"\infty")
    answer = answer.replace(r"\\", "\\").replace("\n", "").replace("bmatrix", "pmatrix")
    for piece in _DROPPED:
        answer = answer.replace(piece, "")
    return answer.replace("$", "")


def _equal(answer: str, gold: str) -> str:
    """The rule by which the two are equal, or ""."""
    answer, gold = answer.lower(), gold.lower()
    if not answer.replace(" ", "") or not gold.replace(" ", ""):
        return ""
    if answer.strip() == gold.strip():
        return "text"
    if _tuple(answer) == _tuple(gold):
        return "tuple"
    values = [_rounded(side) for side in (gold, answer)]
    return "rounded" if None not in values and values[0] == values[1] else ""


def _tuple(text: str) -> str:
    """A tuple or list with its parts rounded; anything else as it is."""
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    rounded = [part if "infty" in part or part in ("a", "-a") else _rounded(part) for part in parts]
    return text if None in rounded else f"{text[0]}{','.join(map(str, rounded))}{text[-1]}"


def _rounded(text: str) -> float | None:
    """The value to two decimals, None where there is none, or where the published parser finds none."""
    text = _readable(text.replace("$", "").strip())
    if _UNKNOWN.search(text):
        return None
    if _has_symbol(text):
        return None
    exact = arithmetic.value(text)
    if exact is None:
        exact = arithmetic.approximation(_DIVISION.sub("/", _PRODUCT.sub("*", text)))
    try:
        number = symbolic.number(text) if exact is None else float(exact)
    except OverflowError:
        return None
    return None if number is None else round(number, 2)


def _has_symbol(text: str) -> bool:
    """Whether a free symbol stands in it that nothing can cancel: only once, and no 0, minus or function in the text.

    The parser takes long to find that such a text has no value.
    """
    bare = _COMMANDS.sub(" ", text)
    if _MAY_VANISH.search(bare):
        return False
    return any(count == 1 for letter, count in Counter(bare).items() if letter in _SYMBOLS)


def _readable(text: str) -> str:
    """What the published LaTeX parser reads: the start, up to a brace that closes nothing or the end of a sentence."""
    level = 0
    for place, character in enumerate(text):
        level += (character == "{") - (character == "}")
        if level < 0:
            text = text[:place]
            break
    return _END_OF_SENTENCE.split(text, maxsplit=1)[0]
