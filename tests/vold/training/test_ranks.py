"""Training over two processes: the same trajectory as one, resumed exactly, ended together."""

import json
from pathlib import Path

import pytest
import torch

from bench.errors import ErrorClass, StageError
from bench.ranks import run_on_ranks
from tests.conftest import need
from tests.vold.conftest import save_student, save_teacher
from tests.vold.training import rank_work
from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.models import load_student
from vold.training.progress import silent

pytestmark = pytest.mark.slow
WORK = "tests.vold.training.rank_work"
STRATEGIES = ("none",)
RUNS = [(stage, strategy) for stage in ("sft", "rl") for strategy in STRATEGIES]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("ranks")
    save_student(home / "student")
    save_teacher(home / "teacher")
    write_jsonl(home / "prompts.jsonl", [Prompt(f"p{i}", f"[{i}+1]solve", str(i % 10)) for i in range(20)])
    rows = [Trace(f"t{i}", f"[{i}+1]solve", f"{i}+1={i + 1}." * (1 + i % 3), True) for i in range(20)]
    write_jsonl(home / "traces.jsonl", rows)
    return home


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """Every stage on one process, and on two with every strategy, never interrupted."""
    need("deepspeed", "deepspeed")
    for stage in ("sft", "rl"):
        rank_work.train(stage, "none", home, home / f"{stage}-one", silent)
    runs = [(stage, strategy, home / f"{stage}-{strategy}") for stage, strategy in RUNS]
    run_on_ranks(2, f"{WORK}:train_all", (runs, home), home, silent)
    return home


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("stage", "strategy"), RUNS)
def test_two_processes_follow_the_trajectory_of_one(stage: str, strategy: str, whole: Path) -> None:
    one, two = rows(whole / f"{stage}-one"), rows(whole / f"{stage}-{strategy}")
    assert len(one) == len(two) == rank_work.STEPS
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        assert left["tokens"] == right["tokens"]
        for name in left:
            expected = None if left[name] is None else pytest.approx(left[name], rel=5e-6, abs=1e-6)
            assert right[name] == expected, (left["step"], name)


@pytest.mark.parametrize(("stage", "strategy"), RUNS)
def test_the_published_checkpoint_is_whole(stage: str, strategy: str, whole: Path) -> None:
    out = whole / f"{stage}-{strategy}" / "out"
    start, one, two = (
        load_student(path).model.state_dict() for path in (whole / "student", whole / f"{stage}-one" / "out", out)
    )
    assert one.keys() == two.keys()
    moved = max(float((start[name] - two[name]).abs().max()) for name in two)
    assert moved > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=moved * 1e-2)
    for file in (whole / "student").iterdir():
        if file.suffix != ".safetensors" and file.name != "config.json":
            assert (out / file.name).read_bytes() == file.read_bytes()
    assert not (out.parent / "checkpoints").exists()


def test_an_error_on_one_process_ends_all_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StageError, match=r"^ValueError: the traces of rank 1 are no traces$") as caught:
        run_on_ranks(2, f"{WORK}:refuse", (), tmp_path, silent)
    assert caught.value.error_class is ErrorClass.FAILED
    assert "the traces of rank 1 are no traces" in (tmp_path / "rank-1.log").read_text()
    assert caplog.messages == ["told by rank 0"], "the first rank's warnings reach whoever started it"
