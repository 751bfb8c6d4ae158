"""Plain English: the worst words of an older idiom stay out of everything that a user or a reader meets."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]

# A pattern, and what to write in its place.
WORDS = {
    r"\bmend(s|ed|ing)?\b": "fix",
    r"(?<!there )\b(is|are|was|were|knows?) no\b(?! (longer|more than|less than|later))": "is not a",
    r"\b(is|are|was|were|be) told\b": "is reported, is given",
    r"\btold\b": "given, reported",
    r"\bwhoever\b": "anyone who, the person who",
    r"\balike\b": "the same, similar, both",
    r"\bas (it|they) stands?\b": "unchanged",
    r"(?<!thing )\belse[.;)]": "otherwise",
    r"\b(so|as) (long|often|much) as (there|it) (is|are)\b": "while",
    r"\bnot at hand\b": "missing",
    r"\b(goes|go|went|going) on\b": "continues, resumes",
    r"\bwhere it stood\b": "where it stopped",
    r"\b(lies|stands?|lie) in\b": "is in",
    r"\banew\b": "again, from the start",
    r"\bbeside\b": "next to, in addition to",
    r"\bpictures?\b": "image",
    r"\b(a|one|an?) (CPU|GPU|second|sample|step|problem|item|seed|file|row) (each|at)? ?a (CPU|second|step)\b": "per",
    r"\bone a (visible )?(CPU|GPU|second|seed|stage|question)\b": "one per",
    r", else\b(?! (it|they|the))": "otherwise",
    r"\bwhat (was|were|is|are) asked\b": "the requests, the problems",
    r"\bput aside\b": "moved, kept",
    r"\bfor want of\b": "because of too little",
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): better for pattern, better in WORDS.items()}


def offences(text: str) -> list[str]:
    """Each bad wording with its surroundings and what to write in its place; code between backticks counts not."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "``", text, flags=re.DOTALL)
    return [
        f"{prose[max(0, match.start() - 40) : match.end() + 20]!r}: write {better!r}"
        for pattern, better in PATTERNS.items()
        for match in pattern.finditer(prose)
    ]


def pages() -> list[Path]:
    generated = ROOT / "docs" / "reports"
    inner = [path for path in (ROOT / "docs").rglob("*.md") if generated not in path.parents]
    return sorted([*ROOT.glob("*.md"), *inner])


def sources() -> list[Path]:
    return sorted(path for package in ("vold", "bench") for path in (ROOT / package).rglob("*.py"))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, comment and longer text constant of a source file."""
    source = path.read_text(encoding="utf-8")
    for number, line in enumerate(source.splitlines(), 1):
        if (comment := re.search(r"(?:^|\s)# (.*)", line)) and not line.lstrip().startswith(('"', "'")):
            yield number, comment[1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.count(" ") >= 2:
            yield node.lineno, node.value


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_in_plain_english(page: Path) -> None:
    assert offences(page.read_text(encoding="utf-8")) == []


def test_docstrings_comments_help_and_messages_are_in_plain_english() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}": bad
        for path in sources()
        # What models write, and what published procedures look for, is not ours to word.
        if not path.is_relative_to(ROOT / "bench/scoring/official")
        for line, text in texts(path)
        if (bad := offences(text))
    }
    assert found == {}


def test_the_names_of_tests_are_sentences_in_plain_english() -> None:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    names = [name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)]
    assert len(names) > 1000
    assert {name: bad for name in names if (bad := offences(name.replace("_", " ")))} == {}


def described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from described(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""


def test_every_setting_is_described_in_plain_english() -> None:
    from bench.evaluation.config import EvalConfig
    from vold.config import RLConfig, SFTConfig, TracesConfig
    from vold.execution import Execution

    models = (TracesConfig, SFTConfig, RLConfig, EvalConfig, Execution)
    settings = {f"{model.__name__}.{name}": text for model in models for name, text in described(model)}
    assert len(settings) > 60
    assert [name for name, text in settings.items() if len(text) < 10] == []
    assert {name: bad for name, text in settings.items() if (bad := offences(text))} == {}


def test_the_search_for_bad_words_finds_them() -> None:
    assert len(offences("It is no mend; it goes on where it stood, one a CPU, else it lies in `results`.")) == 6
    assert offences("There is no rule. It is no longer than `a mend` and has no effect.") == []
