"""Matrix files, profiles and the baseline that come with the suite: found from anywhere, in a checkout and a wheel."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from bench.bundled import ABLATIONS, CHECK_BASELINE, PROFILES
from bench.errors import ConfigurationError
from bench.gate import read_baseline
from bench.matrix.profile import find_profile, load_profile
from bench.matrix.spec import find_matrix, load_spec

REPOSITORY = Path(__file__).resolve().parents[2]
MATRIX = "{schema: vold-bench/matrix@1, name: mine, question: Any?, seeds: [1], matrix: {include: [{name: all}]}}\n"


def test_a_bare_name_is_a_bundled_matrix_and_a_path_is_itself(tmp_path: Path) -> None:
    assert find_matrix(Path("cold_start")) == ABLATIONS / "cold_start.yaml"
    assert load_spec(find_matrix(Path("check"))).name == "check"
    assert find_matrix(Path("cold_start.yaml")) == Path("cold_start.yaml")
    assert find_matrix(tmp_path / "cold_start") == tmp_path / "cold_start"
    with pytest.raises(ConfigurationError, match=r"cold_strat: no such file.*did you mean 'cold_start'"):
        find_matrix(Path("cold_strat"))


def test_a_profile_is_looked_up_next_to_the_matrix_file_and_then_among_the_bundled_ones(tmp_path: Path) -> None:
    matrix = tmp_path / "mine.yaml"
    assert find_profile("small", matrix) == PROFILES / "small.yaml"
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "small.yaml").write_text("schema: vold-bench/profile@1\nabout: mine\nextends: check\n")
    assert find_profile("small", matrix) == tmp_path / "profiles" / "small.yaml"
    with pytest.raises(ConfigurationError, match="no profile 'smal'; did you mean 'small'"):
        find_profile("smal", matrix)


def test_a_profile_elsewhere_may_extend_a_bundled_one(tmp_path: Path) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text("schema: vold-bench/profile@1\nabout: quick\nextends: small\nstages: {rl: {steps: 2}}\n")
    profile, small = load_profile(path), load_profile(PROFILES / "small.yaml")
    assert profile.overrides["rl.steps"].value == 2
    assert profile.settings.models == small.settings.models


def test_the_baseline_is_there() -> None:
    assert read_baseline(CHECK_BASELINE).cells


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a wheel of this code, as pip would unpack it."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("bench", "vold", "vold_bench", "ablations", "results/baselines"):
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=ignored)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / file, source / file)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(root)], cwd=source, capture_output=True, check=True)
    (wheel,) = root.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(root / "site")
    return root / "site"


@pytest.mark.slow
def test_a_wheel_has_the_bundled_files_and_finds_them_from_any_directory(site: Path, tmp_path: Path) -> None:
    def python(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "VOLD_BENCH_STORE": str(tmp_path / "store")}
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    folders = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert folders == {"bench", "vold", "vold_bench"}
    where = "from bench.bundled import *; from bench.gate import read_baseline; print(CHECK_BASELINE)"
    baseline = Path(python("-c", f"{where}; read_baseline(CHECK_BASELINE)").strip())
    assert baseline.is_relative_to(site) and baseline.read_bytes() == CHECK_BASELINE.read_bytes()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "my.yaml").write_text(MATRIX)
    plan = json.loads(python("-m", "bench.cli", "run-matrix", "dir/my.yaml", "--plan", "--json"))
    assert (plan["arms"], plan["profile"], plan["absent"]) == (["all"], "small", [])
    named = json.loads(python("-m", "bench.cli", "run-matrix", "cold_start", "--plan", "--json"))
    assert named["matrix"] == "cold_start" and named["absent"] == []
