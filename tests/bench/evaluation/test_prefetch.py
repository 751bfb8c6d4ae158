"""Turns prepared ahead: their order, limits and errors, and how workers end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.engines import Preparer
from bench.errors import InfrastructureError
from bench.evaluation.prefetch import Prefetch, Preparation
from tests.helpers.prompt_preparers import large, pixels, process, turns, upper


@contextmanager
def started(preparer: Preparer, workers: int, problems: int, size: int = 1 << 30) -> Iterator[Preparation]:
    """A preparation that is entered, with a worker that is ready."""
    with Preparation(preparer, Prefetch(workers, problems, size)) as preparation:
        if preparation.ready is not None:
            preparation.ready.result(60)
        yield preparation


@pytest.mark.parametrize("workers", [0, 2])
def test_turns_come_in_order_and_an_unusable_one_does_not_affect_the_others(workers: int) -> None:
    texts = ["slow", "bad", *map(str, range(20)), "slow again"]
    with started(upper, workers, 8) as preparation:
        found = list(preparation.prepared(turns(texts)))
    assert [str(value) for value in found] == ["SLOW", "bad cannot be asked", *map(str, range(20)), "SLOW AGAIN"]
    assert [isinstance(value, ValueError) for value in found] == [text == "bad" for text in texts]


def test_this_process_prepares_until_a_worker_is_ready() -> None:
    with Preparation(process, Prefetch(1, 4, 1 << 30)) as preparation:
        found = preparation.prepared(turns(list(map(str, range(100)))))
        assert next(found) == os.getpid(), "a worker takes longer to start than this"
        assert preparation.ready is not None
        preparation.ready.result(60)
        (worker,) = set(found)
    assert worker != os.getpid()


@pytest.mark.slow
def test_images_come_unchanged_from_workers() -> None:
    import torch

    with started(pixels, 1, 4) as preparation:
        found = list(preparation.prepared(turns(["3", "5"])))
    for number, prompt in zip((3, 5), found, strict=True):
        expected = pixels([{"type": "text", "text": str(number)}])
        assert prompt[0] == expected[0]
        assert torch.equal(prompt[1].values, expected[1].values)
        assert torch.equal(prompt[1].grid_thw, expected[1].grid_thw)


def test_no_more_turns_are_drawn_than_may_wait() -> None:
    drawn: list[str] = []
    with started(upper, 1, 5) as preparation:
        found = preparation.prepared(turns(list(map(str, range(50))), drawn))
        for number in range(10):
            assert next(found) == str(number)
            assert len(drawn) <= number + 5
    assert len(drawn) < 50


def test_large_turns_are_limited_by_their_bytes() -> None:
    drawn: list[str] = []
    with started(large, 1, 100, 3 << 20) as preparation:
        found = preparation.prepared(turns(list(map(str, range(30))), drawn))
        for _ in range(5):  # from then on their size is known
            next(found)
        time.sleep(0.3)
        before = len(drawn)
        for number in range(10):
            next(found)
            time.sleep(0.02)
            assert len(drawn) - before <= number + 1 + 3


def test_a_killed_worker_is_an_infrastructure_error() -> None:
    with (
        started(upper, 1, 4) as preparation,
        pytest.raises(InfrastructureError, match=r"was killed .* execution\.evaluation\.workers"),
    ):
        list(preparation.prepared(turns(["a", "kill", "b"])))


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from tests.helpers.prompt_preparers import turns, upper\n"
        "from bench.evaluation.prefetch import Preparation, Prefetch\n"
        "if __name__ == '__main__':\n"
        "    with Preparation(upper, Prefetch(1, 4, 1 << 30)) as preparation:\n"
        "        next(preparation.prepared(turns(['a'])))\n"
        "        print(*preparation._pool._processes, flush=True)\n"
        "        time.sleep(60)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(program)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, cwd=root, env=environment)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _lives(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(worker)


@pytest.mark.slow
@pytest.mark.parametrize("stands", [True, False])
def test_ctrl_c_ends_workers_without_output(stands: bool, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import signal\n"
        "from tests.helpers.prompt_preparers import turns, upper\n"
        "from bench.evaluation.prefetch import Preparation, Prefetch\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        with Preparation(upper, Prefetch(2, 8, 1 << 30)) as preparation:\n"
        f"            {stands} and preparation.ready.result(60)\n"
        "            found = preparation.prepared(turns(['slow'] * 1000))\n"
        "            next(found)\n"
        "            print(*preparation._pool._processes, flush=True)\n"
        "            list(found)\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(130)\n"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)}, start_new_session=True,
    )  # fmt: skip
    assert parent.stdout is not None
    workers = [int(worker) for worker in parent.stdout.readline().split()]
    assert workers
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=30)
    assert (parent.returncode, said) == (130, "")
    assert not any(map(_lives, workers))


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
