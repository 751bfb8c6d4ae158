"""Cleans answers, so that LaTeX, Unicode and Markdown spellings of the same thing become one.

Changes of what is cleaned here need a new ``vold.answers.VERSION``.
"""

import re
import unicodedata

LONGEST = 2_000
"""Most characters of an answer. A longer text is not an answer."""

_BROKEN_ESCAPES = str.maketrans({"\x0c": r"\f", "\x08": r"\b"})
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "⁄": "/", "∶": ":",
    "π": r"\pi ", "√": r"\sqrt", "°": r"^\circ ", "∞": r"\infty ", "≈": r"\approx ", "∪": r"\cup ",
    "≤": r"\le ", "≥": r"\ge ",
}  # fmt: skip
_MULTIPLY = re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])")
_SPACES = re.compile(
    r"\\(?:[,;:! ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z])|displaystyle(?![a-zA-Z])|left(?![a-zA-Z])|right(?![a-zA-Z]))|~"
)
_DELIMITERS = re.compile(r"\$+|\\\(|\\\)|\\\[|\\\]")
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal)?|math(?:rm|bf|it|sf|tt)|operatorname|mbox|boxed|fbox|bf|rm)\s*\{([^{}]*)\}"
)
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])")
_MARKDOWN = re.compile(r"\*\*|__|`")
_BLANK = re.compile(r"\s+")


def unwrap(text: str) -> str:
    r"""Replace ``\text{x}`` and similar commands by ``x``, the innermost first, at most six levels deep."""
    for _ in range(6):
        text, count = _WRAPPER.subn(r" \1 ", text)
        if not count:
            break
    return text


def clean(text: str) -> str:
    """``text`` with ASCII operators and single blanks, and without math delimiters, Markdown and sizing commands.

    Some reference answers have a form feed where ``\\f`` was meant (MathVision 2830). It is replaced.
    """
    text = text[:LONGEST].translate(_BROKEN_ESCAPES)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda match: "^{" + match.group().translate(_SUPERSCRIPTS) + "}", text)
    for symbol, plain in _SYMBOLS.items():
        text = text.replace(symbol, plain)
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    text = _MARKDOWN.sub("", text).replace("{,}", ",")
    text = _DELIMITERS.sub(" ", text.replace(r"\$", " "))
    text = _SPACES.sub(" ", text)
    text = _DEGREES.sub(r"\\circ ", text)
    text = unwrap(text)
    text = _MULTIPLY.sub("*", text).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace(r"\%", "%")
    text = text.replace(r"\div", "/").replace(r"\colon", ":")
    return _BLANK.sub(" ", text).strip()


def plain(text: str) -> str:
    """``text`` cleaned, in lower case, without blanks and final punctuation: the form in which options compare."""
    text = _BLANK.sub("", clean(text)).casefold().rstrip(".,;:!")
    while len(text) > 1 and text[0] == "{" and text[-1] == "}" and "{" not in text[1:-1]:
        text = text[1:-1]
    return text
