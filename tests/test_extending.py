"""docs/extending.md is true: every section, applied to a copy of the repository, does what it says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = ("vold", "bench", "vold_bench", "perf", "tests", "ablations", "docs/reference", "pyproject.toml")
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:] if "```console" in section
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extending")]


def blocks(section: str) -> list[tuple[str, str]]:
    """(language, text) of every block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def write(text: str, root: Path) -> None:
    """Write the new file that the first line names."""
    name, _, content = text.removeprefix("# ").partition("\n")
    path = root / name
    assert not path.exists(), f"{name} exists already"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def change(text: str, root: Path) -> None:
    """Replace the lines without ``+`` by the lines without ``-``; they must be in the file exactly once."""
    name, *lines = text.removeprefix("# ").splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    content = (root / name).read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{name} has these lines {content.count(before)} times:\n{before}"
    (root / name).write_text(content.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with everything that the page adds."""
    root = tmp_path_factory.mktemp("copy")
    for name in TREES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    for section in SECTIONS.values():
        for language, text in blocks(section):
            if language == "diff":
                change(text, root)
            elif language != "console":
                write(text, root)
    return root


def commands(section: str) -> list[list[str]]:
    """The words of each command of a section, without the prompt."""
    lines = [line for language, text in blocks(section) if language == "console" for line in text.splitlines()]
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


def run(words: list[str], root: Path) -> str:
    """Run a command in the copy and return what it printed."""
    program = [sys.executable, "-m", "bench.cli"] if words[0] == "vold-bench" else [sys.executable]
    environment = {**os.environ, "PYTHONPATH": str(root), "VOLD_BENCH_STORE": str(root / "store")}
    done = subprocess.run(
        [*program, *words[1:]], cwd=root, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tests_that_the_page_names_pass(copy: Path) -> None:
    """All of them in one process, since each would import the same libraries; every selection must find something."""
    tests = [words for section in SECTIONS.values() for words in commands(section) if "pytest" in words]
    assert all(words[1:4] == ["-m", "pytest", "-q"] and words[5] == "-k" for words in tests) and len(tests) == 6
    files, selections = dict.fromkeys(words[4] for words in tests), [words[6] for words in tests]
    output = run(["python", "-m", "pytest", "-v", *files, "-k", " or ".join(f"({k})" for k in selections)], copy)
    passed = "\n".join(line for line in output.splitlines() if "PASSED" in line)
    assert [words[6] for words in tests if words[6].partition(" or ")[0] not in passed] == []


@pytest.mark.parametrize("title", SECTIONS)
def test_the_commands_that_the_page_names_work(title: str, copy: Path) -> None:
    for words in commands(SECTIONS[title]):
        if "pytest" not in words:
            run(words, copy)


def test_every_thing_that_can_be_added_has_a_section() -> None:
    assert set(SECTIONS) == {
        "An ablation", "A prompt template", "A benchmark", "An estimator of the teacher term", "An RL algorithm",
        "An engine", "A launcher",
    }  # fmt: skip
