r"""MathVision's extraction and comparison (MATH-V, evaluation/evaluate.py).

Faults of the original that are kept:

- A shortcut looks for letters at both ends of the response.
- Everything becomes lower case. Spaces and a few units are removed, other units stay.
- Two values are equal if both round to the same two decimals, as 1/60 and 1/55 do.
- Reference answers are not cleaned in this way. Those in a box, with a degree sign or with a symbol never match.

The published comparison parses both sides as LaTeX and evaluates the result as code. Here ``vold.answers.arithmetic``
computes a value, and the symbolic worker, which can be killed, gets everything else.
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
"""Letters that can only be symbols: d may be a differential, and e and i are numbers."""
_END_OF_SENTENCE = re.compile(r"\.(?!\d)")
_LONGEST = 20_000
"""Only this many characters at the end are read, so that hostile megabytes do not take minutes."""


def score_mathvision(problem: Problem, prediction: Prediction) -> Ruling:
    stored = prediction.extraction
    answer = extract_mathvision(prediction.response) if stored is None else stored.strip()
    references = [problem.answer]
    if problem.options:
        index = ord(problem.answer) - ord("A") if len(problem.answer) == 1 else -1
        references.append(problem.options[index] if 0 <= index < len(problem.options) else "")
    if not answer.strip():
        return Ruling("unparsed", answer, "rule" if stored is None else "stored")
    rules = [rule for reference in references if (rule := _equal(answer, reference))]
    return Ruling.from_comparison(bool(rules), answer, rules[0] if rules else "rule" if stored is None else "stored")


def extract_mathvision(response: str) -> str:
    """The answer as the published code extracts and writes it."""
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
            has_flag = spelling in answer
            answer = answer.rpartition(spelling)[2].strip()
            if has_flag:
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


def _equal(answer: str, reference: str) -> str:
    """The rule by which both are equal, or an empty text."""
    answer, reference = answer.lower(), reference.lower()
    if not answer.replace(" ", "") or not reference.replace(" ", ""):
        return ""
    if answer.strip() == reference.strip():
        return "text"
    if _tuple(answer) == _tuple(reference):
        return "tuple"
    values = [_rounded(side) for side in (reference, answer)]
    return "rounded" if None not in values and values[0] == values[1] else ""


def _tuple(text: str) -> str:
    """A tuple or list with rounded parts; any other text unchanged."""
    parts = text[1:-1].split(",")
    if len(parts) < 2 or (text[0], text[-1]) not in (("(", ")"), ("[", "]")):
        return text
    rounded = [part if "infty" in part or part in ("a", "-a") else _rounded(part) for part in parts]
    return text if None in rounded else f"{text[0]}{','.join(map(str, rounded))}{text[-1]}"


def _rounded(text: str) -> float | None:
    """The value rounded to two decimals, or None if the published parser finds no value."""
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
    """Whether the text has a symbol that nothing can cancel, because it occurs once, without a 0, minus or function.

    The parser is slow to find out that such a text has no value.
    """
    bare = _COMMANDS.sub(" ", text)
    if _MAY_VANISH.search(bare):
        return False
    return any(count == 1 for letter, count in Counter(bare).items() if letter in _SYMBOLS)


def _readable(text: str) -> str:
    """The part that the published parser reads: up to an unmatched closing brace or the end of a sentence."""
    level = 0
    for index, character in enumerate(text):
        level += (character == "{") - (character == "}")
        if level < 0:
            text = text[:index]
            break
    return _END_OF_SENTENCE.split(text, maxsplit=1)[0]
