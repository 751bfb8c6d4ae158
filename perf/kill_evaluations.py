"""Evaluations that are killed at random moments and resumed: no response is lost or repeated, tables are the same.

    python -m perf.kill_evaluations --kills 200

An uninterrupted evaluation of the bundled student on images gives the tables and the time T. Then evaluations are
started, killed (SIGKILL) after a random time between 0 and T, and resumed in the same directory until they end. After
every kill, the log has each response that the engine gave more than a second before, and no response twice. At every
end, the tables have the bytes of the uninterrupted ones. Evaluations are forked from this process, which has already
imported slow modules.
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
from vold.execution import Execution

TABLES = ("problems.parquet", "responses.parquet", "verdicts.parquet", "summary.json")
BENCHMARK = "mathvision"
EXECUTION = Execution(device="cpu", threads=1, rollout_batch=16)
KEPT_AFTER = 1.0


class ReportingEngine(Builtin):
    """Writes the time and the key of every answer to ``pipe`` before it yields the answer."""

    pipe: int

    def answer(self, groups: Iterable[Sequence[Request]], decoding: Decoding) -> Iterator[RequestReplies]:
        for answer in super().answer(groups, decoding):
            os.write(self.pipe, f"{time.monotonic()} {answer.index} {answer.first}\n".encode())
            yield answer


class ReportingPool(EnginePool):
    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def engine(self, config: EngineChoice, model: Path, execution: Execution, sha256: str) -> Any:
        engine = ReportingEngine(model, execution, config.pixel_limits)
        engine.pipe = self.pipe
        return engine


@dataclass(frozen=True, slots=True)
class KillTrial:
    """The evaluation that is killed and resumed."""

    config: EvalConfig
    data: Path

    def start(self, run: Path) -> tuple[int, int]:
        """Fork an evaluation; returns its process id and the file descriptor of the pipe that it reports to."""
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
                execution=EXECUTION, engines=ReportingPool(writing),
            )  # fmt: skip
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def uninterrupted_seconds(trial: KillTrial, run: Path) -> float:
    """Run an evaluation without a kill and return its seconds."""
    start = time.monotonic()
    process, pipe = trial.start(run)
    reported_answers(pipe)
    if os.waitpid(process, 0)[1]:
        raise AssertionError("the uninterrupted evaluation failed")
    return time.monotonic() - start


def reported_answers(pipe: int) -> list[tuple[float, str, int]]:
    """Time, index and sample of every answer that was written to ``pipe``, which ends with its process."""
    with os.fdopen(pipe) as lines:
        rows = [line.split() for line in lines]
    return [(float(when), index, int(sample)) for when, index, sample in rows]


def kill_after(trial: KillTrial, run: Path, seconds: float) -> float | None:
    """Kill an evaluation after ``seconds`` and check its log.

    Returns the age in seconds of the oldest lost response at the kill (0 without a loss), or None where the evaluation
    ended before the kill.
    """
    process, pipe = trial.start(run)
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            reported_answers(pipe)
            assert status == 0, f"an evaluation ended with status {status}"
            return None
        time.sleep(min(left, 0.01))
    moment = time.monotonic()
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    reported = reported_answers(pipe)
    logged = log_keys(run)
    assert max(Counter(logged).values(), default=0) <= 1, f"the log of {run} has a response twice"
    ids = [row["id"] for row in map(json.loads, (trial.data / "test.jsonl").read_text().splitlines())]
    lost = [moment - when for when, index, sample in reported if (ids[int(index)], sample) not in logged]
    assert max(lost, default=0.0) <= KEPT_AFTER, (
        f"a response that was given {max(lost):.1f} s before the kill is lost in {run}"
    )
    return max(lost, default=0.0)


def log_keys(run: Path) -> list[tuple[str, int]]:
    """Id and sample of every complete line of the log."""
    path = run / "responses.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [(row["id"], row["sample"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random moments.")
    parser.add_argument("--items", type=int, default=48)
    options = parser.parse_args()
    random_moments = random.Random(options.seed)
    config = EvalConfig(engine="builtin", samples=4, temperature=1.0, max_tokens=64, group_size=8)
    kills, ends, middle, oldest = 0, 0, 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        trial = KillTrial(config, write_datasets("test", options.items, root / "data")[BENCHMARK])
        seconds = uninterrupted_seconds(trial, root / "uninterrupted")
        total = len(log_keys(root / "uninterrupted"))
        while kills < options.kills:
            run = root / f"run{ends}"
            while (lost := kill_after(trial, run, random_moments.uniform(0, seconds))) is not None:
                kills, oldest = kills + 1, max(oldest, lost)
                middle += 0 < len(log_keys(run)) < total
            for name in TABLES:
                assert (run / "out" / name).read_bytes() == (root / "uninterrupted/out" / name).read_bytes(), name
            ends += 1
    sys.stdout.write(
        f"{kills} kills ({middle} with a part of the {total} responses in the log) of {ends} evaluations of "
        f"{seconds:.1f} s: no response twice, every table equal, oldest loss {1000 * oldest:.0f} ms before its kill\n"
    )


if __name__ == "__main__":
    main()
