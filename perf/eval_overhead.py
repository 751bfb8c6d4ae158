"""What an evaluation costs beyond its engine: the same requests sent straight to it, and through the harness, in turns.

    python -m perf.eval_overhead --engine builtin --items 64
    python -m perf.eval_overhead --engine vllm --items 64
    python -m perf.eval_overhead --engine server --items 200 --latency 0.2

Straight: turns are prepared and answered, replies are dropped. Harness: ``evaluate`` from records to tables, scoring
included, with the same warm engine; writing the tables at the end stands apart. The bundled student reads the small
world's pictures; the server is a stub that waits ``--latency`` seconds before each reply. The verifying worker's
processor time is not counted.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.engines import Ask, Engine, Settings
from bench.engines.factory import build
from bench.evaluation import tables
from bench.evaluation.asking import sample_seeds
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.evaluation.selection import choose
from bench.evaluation.shown import turn
from bench.smallworld import checkpoint_path
from bench.smallworld.records import materialise
from perf.stub_engine import StubPool
from vold.config import Execution

BENCHMARK = "mathvision"
SEED = 1
EXECUTION = Execution.model_validate(
    {"device": "cpu", "threads": 1, "vllm": {"max_length": 512}, "evaluation": {"workers": 0}}
)


@dataclass
class Took:
    """Seconds of the clock, of it writing tables, and of the processor."""

    wall: float
    cpu: float
    tables: float = 0.0


@contextmanager
def engine_of(name: str, config: EvalConfig, latency: float) -> Iterator[Engine]:
    if name == "server":
        from bench.engines.client import Endpoint
        from bench.engines.openai import Chat, MessagePreparer
        from tests.bench.engines.stub_server import stub_server

        with stub_server("--latency", str(latency)) as (url, _):
            client = EXECUTION.client
            engine: Engine = Chat([Endpoint(url, None, client)], "stub", client, MessagePreparer())
            yield engine
            engine.close()
        return
    engine = build(config, checkpoint_path("student_a"), EXECUTION)
    yield engine
    engine.close()


def straight(engine: Engine, config: EvalConfig, data: Path) -> None:
    (selection,) = choose(config, {BENCHMARK: data})
    size = config.group_size if engine.grouped else 1

    def groups() -> Iterator[Sequence[Ask]]:
        for start in range(0, len(selection.problems), size):
            yield [
                Ask(start + place, engine.preparer(turn(config, p)), sample_seeds(SEED, p, config.samples))
                for place, p in enumerate(selection.problems[start : start + size])
            ]

    for _ in engine.answer(groups(), Settings(config.max_tokens, config.temperature)):
        pass


def harness(engine: Engine, config: EvalConfig, data: Path, run: Path) -> float:
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
            config, model=checkpoint_path("student_a"), data={BENCHMARK: data}, run=run, seed=SEED,
            execution=EXECUTION, engines=pool,
        )  # fmt: skip
    return spent


def timed(work: Callable[..., float | None], *arguments: Any) -> Took:
    wall, cpu = time.perf_counter(), time.process_time()
    spent = work(*arguments) or 0.0
    return Took(time.perf_counter() - wall, time.process_time() - cpu, spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["builtin", "vllm", "server"], default="builtin")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds of the stub server's replies")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = EvalConfig(
        engine="vllm" if options.engine == "vllm" else "builtin", samples=options.samples, temperature=1.0,
        max_tokens=options.max_tokens,
    )  # fmt: skip
    took: dict[str, list[Took]] = {"straight": [], "harness": []}
    with tempfile.TemporaryDirectory() as scratch, engine_of(options.engine, config, options.latency) as engine:
        root = Path(scratch)
        data = materialise("test", options.items, root / "data")[BENCHMARK]
        straight(engine, config, data)  # warm caches, lazy imports
        harness(engine, config, data, root / "warm")
        for number in range(options.repeats):
            both = [
                ("straight", (straight, engine, config, data)),
                ("harness", (harness, engine, config, data, root / f"run{number}")),
            ]
            for name, work in both[:: 1 - 2 * (number % 2)]:
                took[name].append(timed(*work))
    samples = options.items * options.samples
    pairs = list(zip(took["straight"], took["harness"], strict=True))
    cpu = statistics.median((h.cpu - s.cpu) / samples for s, h in pairs)
    asking = statistics.median((h.wall - h.tables) / s.wall - 1 for s, h in pairs)
    straight_wall, wall = (statistics.median(row.wall for row in took[name]) for name in ("straight", "harness"))
    written = statistics.median(row.tables for row in took["harness"])
    print(
        "| engine | samples | straight, s | harness, s | of it tables, s | overhead without tables | CPU ms a sample |"
    )
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {options.engine} | {samples} | {straight_wall:.2f} | {wall:.2f} | {written:.2f} | {100 * asking:.1f} % "
        f"| {1000 * cpu:.2f} |"
    )


if __name__ == "__main__":
    main()
