"""What an evaluation costs beyond its engine: the same requests sent straight to it, and through the harness, in turns.

    python -m perf.eval_overhead --engine builtin --items 96 960
    python -m perf.eval_overhead --engine builtin --items 64 256 --max-tokens 512 --unending
    python -m perf.eval_overhead --engine vllm_server --items 64 256
    python -m perf.eval_overhead --engine server --items 304 1000 --samples 1 --latency 1 --in-flight 32

Straight: turns are prepared and answered, replies are dropped. Harness: ``evaluate`` from records to tables, scoring
included, with the same warm engine. The bundled student reads the small world's images; ``server`` is a stub that
waits ``--latency`` seconds before each reply. Figures are medians over the pairs of one size; two sizes give the part
that every run pays and the part that every sample adds. The processor's time is this process's: a server's, and that
of the process which compares formulas, are not in it.
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
from bench.evaluation import tables
from bench.evaluation.config import EvalConfig
from bench.evaluation.prompt_record import turn
from bench.evaluation.requests import sample_seeds
from bench.evaluation.run import evaluate
from bench.evaluation.selection import read_selections
from bench.smallworld import checkpoint_path
from bench.smallworld.records import write_datasets
from perf.stub_engine import StubPool
from vold.config import ClientExecution, Execution

ENGINES = ("builtin", "vllm", "vllm_server", "server")
BENCHMARK = "mathvision"
SEED = 1

Data = Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of the clock and of the processor; of the clock writing tables, and in the steps of vLLM in process."""

    wall: float
    cpu: float
    tables: float
    steps: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Neighbours in time over the same requests."""

    straight: Took
    harness: Took

    @property
    def share(self) -> float:
        """What the harness adds to the clock, tables included, as a share of straight."""
        return self.wall / self.straight.wall

    @property
    def wall(self) -> float:
        return self.harness.wall - self.straight.wall

    @property
    def outside(self) -> float:
        """What the harness adds outside of the engine's own steps, as a share of straight."""
        return (self.wall - self.harness.steps + self.straight.steps) / self.straight.wall

    @property
    def cpu(self) -> float:
        return self.harness.cpu - self.straight.cpu


@contextmanager
def stub_chat(latency: float, client: ClientExecution, reply: str = "") -> Iterator[tuple[str, Engine]]:
    """(URL, engine) of a stub server that waits so many seconds before each reply."""
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


def straight(engine: Engine, config: EvalConfig, data: Data) -> None:
    selections = read_selections(config, data)
    problems = [problem for selection in selections for problem in selection.problems]
    size = config.group_size if engine.grouped else 1

    def groups() -> Iterator[Sequence[Request]]:
        for start in range(0, len(problems), size):
            yield [
                Request(start + place, engine.preparer(turn(config, p)), sample_seeds(SEED, p, config.samples))
                for place, p in enumerate(problems[start : start + size])
            ]

    for _ in engine.answer(groups(), Decoding(config.max_tokens, config.temperature)):
        pass


def harness(engine: Engine, config: EvalConfig, data: Data, execution: Execution, run: Path) -> float:
    """Returns the seconds of its tables."""
    pool, spent = StubPool(lambda: engine), 0.0
    write_tables = tables.write_tables

    def timed_tables(*arguments: Any) -> None:
        nonlocal spent
        start = time.perf_counter()
        write_tables(*arguments)
        spent = time.perf_counter() - start

    with patch.object(tables, "write_tables", timed_tables):
        evaluate(
            config, model=checkpoint_path("student_a"), data=data, run=run, seed=SEED, execution=execution,
            engines=pool,
        )  # fmt: skip
    return spent


@contextmanager
def stepping(engine: Engine) -> Iterator[list[float]]:
    """Seconds that each step of vLLM in process takes meanwhile, waiting for other threads included."""
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


def timed(engine: Engine, work: Callable[[], float | None]) -> Took:
    with stepping(engine) as steps:
        wall, cpu = time.perf_counter(), time.process_time()
        spent = work() or 0.0
        return Took(time.perf_counter() - wall, time.process_time() - cpu, spent, sum(steps))


def pairs(engine: Engine, config: EvalConfig, execution: Execution, items: int, repeats: int, root: Path) -> list[Pair]:
    """The first of a pair goes second in the next; one pair before them warms caches and lazy imports."""
    data = {BENCHMARK: write_datasets("test", items, root / "data")[BENCHMARK]}
    found = []
    for number in range(repeats + 1):
        run = root / f"{items}-{number}"
        sides: list[Callable[[], float | None]] = [
            lambda: straight(engine, config, data),
            lambda run=run: harness(engine, config, data, execution, run),
        ]
        order = (0, 1) if number % 2 else (1, 0)
        took = {side: timed(engine, sides[side]) for side in order}
        found.append(Pair(took[0], took[1]))
    return found[1:]


def interval(values: Sequence[float]) -> str:
    """The mean, and where there are two values or more its 95 % interval by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{mean(values):.1f}"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):.1f} ± {half:.1f}"


def row(engine: str, samples: int, found: Sequence[Pair]) -> str:
    straight_wall = median(pair.straight.wall for pair in found)
    wall, written = (median(getattr(pair.harness, name) for pair in found) for name in ("wall", "tables"))
    shares = sorted(100 * pair.share for pair in found)
    outside = f"{100 * median(pair.outside for pair in found):.1f}" if found[0].straight.steps else ""
    busy = 100 * median(pair.cpu / pair.straight.cpu for pair in found)
    cpu = 1000 * median(pair.cpu for pair in found) / samples
    return (
        f"| {engine} | {samples:,} | {straight_wall:.2f} | {wall:.2f} | {written:.2f} "
        f"| {median(shares):.1f} ({shares[0]:.1f} to {shares[-1]:.1f}) | {interval(shares)} | {outside} | {busy:.1f} "
        f"| {cpu:.2f} |"
    )


def parts(sizes: Mapping[int, Sequence[Pair]]) -> str:
    """The straight line through the medians of the least and the greatest number of samples."""
    least, greatest = min(sizes), max(sizes)
    said = []
    for name, what in (("wall", "of the clock"), ("cpu", "of the processor")):
        low, high = (median(getattr(pair, name) for pair in sizes[size]) for size in (least, greatest))
        each = (high - low) / (greatest - least)
        said.append(f"{low - each * least:.2f} s {what} a run and {1000 * each:.2f} ms a sample")
    return f"The harness adds {', '.join(said)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, default="builtin")
    parser.add_argument(
        "--items", type=int, nargs="+", default=[64], help="numbers of problems, a line of figures each"
    )
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--unending", action="store_true", help="builtin, vllm: every answer goes on to --max-tokens")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds of the stub server's replies")
    parser.add_argument("--in-flight", type=int, help="requests at a time; else it grows as the server keeps up")
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
    sizes: dict[int, list[Pair]] = {}
    print(
        "| engine | samples | straight, s | harness, s | of it tables, s | added to the clock, % | mean | outside of "
        "vLLM's steps | added to the processor's time, % | CPU ms a sample |"
    )
    print(f"|{'---|' * 10}")
    with (
        tempfile.TemporaryDirectory() as scratch,
        _unending() if options.unending else nullcontext(),
        engine_of(options.engine, config, execution, options.latency) as engine,
    ):
        for items in options.items:
            samples = items * options.samples
            sizes[samples] = pairs(engine, config, execution, items, options.repeats, Path(scratch))
            print(row(options.engine, samples, sizes[samples]), flush=True)
    if len(sizes) > 1:
        print(f"\n{parts(sizes)}")


@contextmanager
def _unending() -> Iterator[None]:
    """No token ends a completion of the engines in this process."""
    from bench.engines import model_facts, vllm
    from vold.models import Student

    def endless(path: Path) -> tuple[list[int], list[int]]:
        return [], model_facts.vocabulary(path)[1]

    with patch.object(Student, "stop_ids", ()), patch.object(vllm, "vocabulary", endless):
        yield


if __name__ == "__main__":
    main()
