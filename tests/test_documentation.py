"""The documentation names only pages, files and stages that exist, and its YAML can be used."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import main
from bench.cli.train_file import FORMS, form_of
from bench.matrix.spec import load_spec
from bench.matrix.yaml_file import YamlFile

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if "reports" not in page.relative_to(ROOT).parts),
]
# Names of files in backticks that begin with a folder of the repository: `bench/store.py`, `vold/answers/`.
FILES = re.compile(r"`((?:vold|bench|vold_bench|ablations|perf|tests|docs|results/baselines)/[\w./-]*)`")
# Files that a page tells the reader to write.
WRITTEN_BY_READERS = {"runs/first.yaml"}
LINKS = re.compile(r"\]\(([^)\s]+)\)")
WIDTH = 120


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> Iterator[str]:
    """The lines of a page outside of code blocks."""
    code = False
    for line in text_of(page).splitlines():
        if line.startswith("```"):
            code = not code
        elif not code:
            yield line


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = [line.lstrip("# ") for line in prose(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_documentation_leads_somewhere(page: Path) -> None:
    for link in LINKS.findall("\n".join(prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_the_documentation_names_exists(page: Path) -> None:
    for name in FILES.findall(text_of(page)):
        assert name.endswith("NAME.yaml") or name in WRITTEN_BY_READERS or (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_prose_of_the_documentation_wraps_at_120_characters(page: Path) -> None:
    long = [line for line in prose(page) if len(line) > WIDTH and not line.lstrip().startswith(("|", "!["))]
    assert not long, long[0]


def blocks(page: Path, schema: str) -> list[str]:
    """The YAML blocks of a page that name a schema."""
    texts = re.findall(r"^```yaml\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [text for text in texts if f"schema: vold-bench/{schema}@" in text]


def test_every_matrix_file_of_the_documentation_can_be_loaded(tmp_path: Path) -> None:
    texts = [text for page in PAGES for text in blocks(page, "matrix")]
    assert len(texts) >= 2
    for text in texts:
        (tmp_path / "matrix.yaml").write_text(text, encoding="utf-8")
        assert load_spec(tmp_path / "matrix.yaml").names


def test_every_training_file_of_the_documentation_can_be_loaded(tmp_path: Path) -> None:
    texts = [text for page in PAGES for schema in ("train", "traces") for text in blocks(page, schema)]
    assert len(texts) >= 3
    for text in texts:
        (tmp_path / "train.yaml").write_text(text, encoding="utf-8")
        source = YamlFile(tmp_path / "train.yaml")
        form = form_of(source)
        assert form is not None
        FORMS[form].model_validate(source.data)


@pytest.mark.slow
def test_the_quick_start_names_the_stages_of_its_own_matrix(tmp_path: Path) -> None:
    page = ROOT / "docs" / "quickstart.md"
    (matrix,) = blocks(page, "matrix")
    (tmp_path / "first.yaml").write_text(matrix, encoding="utf-8")
    words = ["run-matrix", str(tmp_path / "first.yaml"), "--plan", "--json", "--store", str(tmp_path / "store")]
    stages = set(json.loads(CliRunner().invoke(main.app, words).stdout)["stages"])
    named = set(re.findall(r"\b(?:traces|sft|rl|eval)-[0-9a-f]{12}\b", text_of(page)))
    own_evaluation = {"eval-3ae4e9cd95ca"}  # step 2 evaluates a copied checkpoint outside of the matrix
    assert named - own_evaluation <= stages
    assert len(named & stages) >= 4
