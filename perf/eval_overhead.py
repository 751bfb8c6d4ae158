"""The cost of an evaluation beyond its engine: the same requests go to the engine directly and through the harness.

    python -m perf.eval_overhead --engine builtin --items 96 960
    python -m perf.eval_overhead --engine builtin --items 64 256 --max-tokens 512 --unending
    python -m perf.eval_overhead --engine vllm_server --items 64 256
    python -m perf.eval_overhead --engine server --items 304 1000 --samples 1 --latency 1 --in-flight 32

Straight: turns are prepared and answered, and replies are dropped. Harness: ``evaluate`` from records to tables,
including scoring, with the same warm engine. The two alternate. The bundled student reads images of the small world;
``server`` is a stub that waits ``--latency`` seconds before each reply. Figures are medians over the pairs of one size.
Two sizes give the cost per run and the cost per sample. Processor time is that of this process, without a server and
without the process that compares formulas.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any
from unittest.mock import patch

from bench.engines import Decoding, Engine, Request
from bench.engines.factory import build
from bench.evaluation import parquet_tables
from bench.evaluation.config import EvalConfig
from bench.evaluation.prompt_record import turn
from bench.evaluation.requests import sample_seeds
from bench.evaluation.run import evaluate
from bench.evaluation.selection import read_selections
from bench.smallworld import checkpoint_path
from bench.smallworld.records import write_datasets
from perf.stub_engine import StubPool
from vold.execution import ClientExecution, Execution

ENGINES = ("builtin", "vllm", "vllm_server", "server")
BENCHMARK = "mathvision"
SEED = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one evaluation.

    wall, cpu: on the clock and on the processor.
    tables: on the clock, spent writing tables.
    steps: on the clock, spent in the steps of vLLM in this process.
    """

    wall: float
    cpu: float
    tables: float
    steps: float


@dataclass(frozen=True, slots=True)
class OverheadPair:
    """A direct and a harness evaluation of the same requests, one right after the other."""

    straight: Timing
    harness: Timing

    @property
    def share(self) -> float:
        """Clock time that the harness adds, including tables, as a share of straight."""
        return self.wall / self.straight.wall

    @property
    def wall(self) -> float:
        return self.harness.wall - self.straight.wall

    @property
    def outside(self) -> float:
        """Clock time that the harness adds outside of the engine's own steps, as a share of straight."""
        return (self.wall - self.harness.steps + self.straight.steps) / self.straight.wall

    @property
    def cpu(self) -> float:
        return self.harness.cpu - self.straight.cpu


@contextmanager
def stub_chat(latency: float, client: ClientExecution, reply: str = "") -> Iterator[tuple[str, Engine]]:
    """The URL of a stub server that waits ``latency`` seconds before each reply, and an engine for it."""
    from bench.engines.client import Endpoint
    from bench.engines.openai import ChatEngine, MessagePreparer
    from tests.helpers.stub_server import stub_server

    options = ["--latency", str(latency), *(["--replies", json.dumps({"": reply})] if reply else [])]
    with stub_server(*options) as (url, _):
        engine = ChatEngine([Endpoint(url, None, client)], "stub", client, MessagePreparer())
        try:
            yield url, engine
        finally:
            engine.close()


@contextmanager
def engine_of(name: str, config: EvalConfig, execution: Execution, latency: float) -> Iterator[Engine]:
    if name == "server":
        with stub_chat(latency, execution.client) as (_, engine):
            yield engine
        return
    engine = build(config, checkpoint_path("student_a"), execution)
    try:
        yield engine
    finally:
        engine.close()


def answer_straight(engine: Engine, config: EvalConfig, data: Mapping[str, Path]) -> None:
    selections = read_selections(config, data)
    problems = [problem for selection in selections for problem in selection.problems]
    size = config.group_size if engine.grouped else 1

    def groups() -> Iterator[Sequence[Request]]:
        for start in range(0, len(problems), size):
            yield [
                Request(start + offset, engine.preparer(turn(config, p)), sample_seeds(SEED, p, config.samples))
                for offset, p in enumerate(problems[start : start + size])
            ]

    for _ in engine.answer(groups(), Decoding(config.max_tokens, config.temperature)):
        pass


def answer_through_harness(
    engine: Engine, config: EvalConfig, data: Mapping[str, Path], execution: Execution, run: Path
) -> float:
    """Evaluate through the harness; returns the seconds that its tables took."""
    pool, spent = StubPool(lambda: engine), 0.0
    write_tables = parquet_tables.write_tables

    def timed_tables(*arguments: Any) -> None:
        nonlocal spent
        start = time.perf_counter()
        write_tables(*arguments)
        spent = time.perf_counter() - start

    with patch.object(parquet_tables, "write_tables", timed_tables):
        evaluate(
            config, model=checkpoint_path("student_a"), data=data, run=run, seed=SEED, execution=execution,
            engines=pool,
        )  # fmt: skip
    return spent


@contextmanager
def stepping(engine: Engine) -> Iterator[list[float]]:
    """Collects the seconds of each vLLM step in this process, including waits for other threads."""
    steps: list[float] = []
    if engine.about()["name"] != "vllm":
        yield steps
        return
    vllm = engine.engine._llm.llm_engine  # type: ignore[attr-defined]
    step = vllm.step

    def timed_step() -> Any:
        start = time.perf_counter()
        try:
            return step()
        finally:
            steps.append(time.perf_counter() - start)

    with patch.object(vllm, "step", timed_step):
        yield steps


def time_side(engine: Engine, work: Callable[[], float | None]) -> Timing:
    with stepping(engine) as steps:
        wall, cpu = time.perf_counter(), time.process_time()
        spent = work() or 0.0
        return Timing(time.perf_counter() - wall, time.process_time() - cpu, spent, sum(steps))


def time_pairs(
    engine: Engine, config: EvalConfig, execution: Execution, items: int, repeats: int, root: Path
) -> list[OverheadPair]:
    """``repeats`` pairs in alternating order, after one pair that warms caches and lazy imports."""
    data = {BENCHMARK: write_datasets("test", items, root / "data")[BENCHMARK]}
    timings = []
    for number in range(repeats + 1):
        run = root / f"{items}-{number}"
        sides: list[Callable[[], float | None]] = [
            lambda: answer_straight(engine, config, data),
            lambda run=run: answer_through_harness(engine, config, data, execution, run),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        by_side = {side: time_side(engine, sides[side]) for side in order}
        timings.append(OverheadPair(by_side[0], by_side[1]))
    return timings[1:]


def mean_with_interval(values: Sequence[float]) -> str:
    """The mean with its 95 % interval by Student's t; a single value has no interval."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{mean(values):.1f}"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ± {half:.1f}"


def overhead_row(engine: str, samples: int, pairs: Sequence[OverheadPair]) -> str:
    straight_wall = median(pair.straight.wall for pair in pairs)
    wall, written = (median(getattr(pair.harness, name) for pair in pairs) for name in ("wall", "tables"))
    shares = sorted(100 * pair.share for pair in pairs)
    outside = f"{100 * median(pair.outside for pair in pairs):.1f}" if pairs[0].straight.steps else ""
    busy = 100 * median(pair.cpu / pair.straight.cpu for pair in pairs)
    cpu = 1000 * median(pair.cpu for pair in pairs) / samples
    return (
        f"| {engine} | {samples:,} | {straight_wall:.2f} | {wall:.2f} | {written:.2f} "
        f"| {median(shares):.1f} ({shares[0]:.1f} to {shares[-1]:.1f}) | {mean_with_interval(shares)} | {outside} "
        f"| {busy:.1f} | {cpu:.2f} |"
    )


def overhead_split(sizes: Mapping[int, Sequence[OverheadPair]]) -> str:
    """The cost per run and per sample, from the medians at the smallest and the largest number of samples."""
    least, greatest = min(sizes), max(sizes)
    costs = []
    for name, unit in (("wall", "of the clock"), ("cpu", "of the processor")):
        low, high = (median(getattr(pair, name) for pair in sizes[size]) for size in (least, greatest))
        each = (high - low) / (greatest - least)
        costs.append(f"{low - each * least:.2f} s {unit} per run and {1000 * each:.2f} ms per sample")
    return f"The harness adds {', '.join(costs)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="builtin")
    parser.add_argument("--items", type=int, nargs="+", default=[64], help="Numbers of problems; each gives one row.")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument(
        "--unending", action="store_true", help="Make every response --max-tokens long (builtin, vllm)."
    )
    parser.add_argument("--latency", type=float, default=0.2, help="Seconds before each reply of the stub server.")
    parser.add_argument("--in-flight", type=int, help="Fixed number of concurrent requests; adaptive by default.")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = EvalConfig.model_validate(
        {
            "engine": "openai" if options.engine == "server" else options.engine,
            "samples": options.samples,
            "temperature": 1.0 if options.samples > 1 else 0.0,
            "max_tokens": options.max_tokens,
        }
    )
    bound = options.in_flight
    execution = Execution.model_validate(
        {
            "device": "cpu",
            "threads": 1,
            "vllm": {"max_length": options.max_tokens + 416},
            "client": {"concurrency": bound, "max_concurrency": bound} if bound else {},
        }
    )
    sizes: dict[int, list[OverheadPair]] = {}
    print(
        "| engine | samples | straight, s | harness, s | of it tables, s | added to the clock, % | mean | outside of "
        "vLLM's steps | added to the processor's time, % | CPU ms per sample |"
    )
    print(f"|{'---|' * 10}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        _unending() if options.unending else nullcontext(),
        engine_of(options.engine, config, execution, options.latency) as engine,
    ):
        for items in options.items:
            samples = items * options.samples
            sizes[samples] = time_pairs(engine, config, execution, items, options.repeats, Path(scratch))
            print(overhead_row(options.engine, samples, sizes[samples]), flush=True)
    if len(sizes) > 1:
        print(f"\n{overhead_split(sizes)}")


@contextmanager
def _unending() -> Iterator[None]:
    """Remove the stop tokens of the engines in this process, so that no token ends a completion."""
    from bench.engines import model_facts, vllm
    from vold.models import Student

    def endless(path: Path) -> tuple[list[int], list[int]]:
        return [], model_facts.vocabulary(path)[1]

    with patch.object(Student, "stop_ids", ()), patch.object(vllm, "vocabulary", endless):
        yield


if __name__ == "__main__":
    main()
