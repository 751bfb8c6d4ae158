"""Evaluations killed at random moments, until they end: nothing lost, nothing twice, the same tables.

    python -m perf.kill_evaluations --kills 200

An undisturbed evaluation of the bundled student on images gives the tables and the time T. Then evaluations are
started and killed (SIGKILL) after a time drawn between 0 and T, and started again on the same directory until they
end. After every kill: each response that the engine had given a second before is in the log, and no response is there
twice. At every end: the tables have the bytes of the undisturbed ones. Each is forked from this process, which has
imported what is slow to import.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.engines import Decoding, Request, RequestReplies
from bench.engines.builtin import Builtin
from bench.engines.factory import EngineChoice, EnginePool
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.smallworld import checkpoint_path
from bench.smallworld.records import write_datasets
from vold.config import Execution

TABLES = ("problems.parquet", "responses.parquet", "verdicts.parquet", "summary.json")
BENCHMARK = "mathvision"
EXECUTION = Execution(device="cpu", threads=1, rollout_batch=16)
KEPT_AFTER = 1.0


class Reporting(Builtin):
    """Tells ``pipe`` of every answer, with the time, before anyone else hears of it."""

    pipe: int

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for answer in super().answer(groups, decoding):
            os.write(self.pipe, f"{time.monotonic()} {answer.index} {answer.first}\n".encode())
            yield answer


class Pool(EnginePool):
    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Any:
        engine = Reporting(model, execution, config.pixel_limits)
        engine.pipe = self.pipe
        return engine


@dataclass(frozen=True, slots=True)
class Trial:
    """What is evaluated, again and again."""

    config: EvalConfig
    data: Path

    def start(self, run: Path) -> tuple[int, int]:
        """Fork an evaluation; returns its process and the pipe that it reports to."""
        reading, writing = os.pipe()
        process = os.fork()
        if process:
            os.close(writing)
            return process, reading
        code = 1
        try:
            os.close(reading)
            evaluate(
                self.config, model=checkpoint_path("student_a"), data={BENCHMARK: self.data}, run=run, seed=1,
                execution=EXECUTION, engines=Pool(writing),
            )  # fmt: skip
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def undisturbed(trial: Trial, run: Path) -> float:
    """Its seconds."""
    start = time.monotonic()
    process, pipe = trial.start(run)
    answers(pipe)
    if os.waitpid(process, 0)[1]:
        raise AssertionError("the undisturbed evaluation failed")
    return time.monotonic() - start


def answers(pipe: int) -> list[tuple[float, str, int]]:
    """(time, place, sample) of all that was told through ``pipe``, which ends with its process."""
    with os.fdopen(pipe) as told:
        rows = [line.split() for line in told]
    return [(float(when), place, int(sample)) for when, place, sample in rows]


def killed(trial: Trial, run: Path, after: float) -> float | None:
    """Kill an evaluation after so many seconds and check its log; None where it had ended, else the age of its loss."""
    process, pipe = trial.start(run)
    deadline = time.monotonic() + after
    while (left := deadline - time.monotonic()) > 0:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            answers(pipe)
            assert status == 0, f"an evaluation ended with status {status}"
            return None
        time.sleep(min(left, 0.01))
    moment = time.monotonic()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    told = answers(pipe)
    logged = log_keys(run)
    assert max(Counter(logged).values(), default=0) <= 1, f"a response stands twice in {run}"
    ids = [row["id"] for row in map(json.loads, (trial.data / "test.jsonl").read_text().splitlines())]
    lost = [moment - when for when, place, sample in told if (ids[int(place)], sample) not in logged]
    assert max(lost, default=0.0) <= KEPT_AFTER, f"a response of {max(lost):.1f} s before the kill is lost in {run}"
    return max(lost, default=0.0)


def log_keys(run: Path) -> list[tuple[str, int]]:
    """(id, sample) of every whole line."""
    path = run / "responses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [(row["id"], row["sample"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--items", type=int, default=48)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    config = EvalConfig(engine="builtin", samples=4, temperature=1.0, max_tokens=64, group_size=8)
    kills, ends, middle, oldest = 0, 0, 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        trial = Trial(config, write_datasets("test", options.items, root / "data")[BENCHMARK])
        seconds = undisturbed(trial, root / "whole")
        total = len(log_keys(root / "whole"))
        while kills < options.kills:
            run = root / f"run{ends}"
            while (lost := killed(trial, run, draw.uniform(0, seconds))) is not None:
                kills, oldest = kills + 1, max(oldest, lost)
                middle += 0 < len(log_keys(run)) < total
            for name in TABLES:
                assert (run / "out" / name).read_bytes() == (root / "whole/out" / name).read_bytes(), name
            ends += 1
    sys.stdout.write(
        f"{kills} kills ({middle} with a part of the {total} responses in the log) of {ends} evaluations of "
        f"{seconds:.1f} s: no response twice, every table equal, oldest loss {1000 * oldest:.0f} ms before its kill\n"
    )


if __name__ == "__main__":
    main()
