"""Imports run downwards: a package imports only what is below it, and no two modules import each other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. A package may import packages of earlier lines only; those of one line do not know each other.
LAYERS = {
    "vold": """
        config files findings heartbeat locations out_of_memory processes seeding torchvision_cpu
        answers distributed execution images objectives
        data models
        rewards rollout teacher
        preflight
        training
    """,
    "bench": """
        bundled hints records terminal
        errors
        summary
        stats store
        benchmarks prompts
        engines report smallworld
        benchmark_data model_source scoring
        evaluation
        bridges display exports review
        matrix
        evaluation_request gate
        evaluate_models
        gate_output
        cli
    """,
}


def floors(package: str) -> dict[str, int]:
    return {name: floor for floor, line in enumerate(LAYERS[package].split("\n")) for name in line.split()}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules(package: str) -> dict[str, Path]:
    return {module_of(path): path for path in sorted((ROOT / package).rglob("*.py"))}


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of ``known`` that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom) and node.module in known:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in names)


def upward(package: str) -> list[str]:
    """Every import from a package to one that is not below it."""
    known, floor = modules(package), floors(package)
    lines = []
    for name, path in known.items():
        parts = name.split(".")
        if len(parts) == 1:
            continue
        for target in imports(path, known):
            below = target.split(".")[1] if "." in target else None
            if below is not None and below != parts[1] and floor[below] >= floor[parts[1]]:
                lines.append(f"{name} imports {target}")
    return lines


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of modules that import each other; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", LAYERS)
def test_every_package_has_a_floor(package: str) -> None:
    names = {name.split(".")[1] for name in modules(package) if "." in name}
    assert names == set(floors(package))


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_downwards(package: str) -> None:
    assert upward(package) == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_modules_import_each_other(package: str) -> None:
    known = modules(package)
    # A package's face imports its own modules, which may import other modules of the package.
    graph = {name: set(imports(path, known)) - {name} for name, path in known.items() if path.name != "__init__.py"}
    assert len(graph) > 50
    assert cycle(graph) == []


def test_a_cycle_is_found() -> None:
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


def test_the_trainer_knows_nothing_of_the_suite() -> None:
    suite = modules("bench")
    assert [name for name, path in modules("vold").items() if list(imports(path, suite))] == []
