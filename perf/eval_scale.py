"""Time and memory of the evaluation around an engine, over the number of samples.

    python -m perf.eval_scale --sizes 1000 5000 25000 --out docs/figures/eval_scale.svg

Every size is evaluated in a fresh process with an engine that answers immediately, with two kilobytes per sample and
four samples per problem. It is evaluated once from the start and once from its complete log. Memory is the peak
resident set of the process, which never imports torch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SAMPLES = 4
MEMORY_GOAL_MB = 300


def write_records(root: Path, items: int) -> None:
    """Write ``items`` records in the format of MathVision, to be evaluated without images."""
    root.mkdir(parents=True)
    with (root / "test.jsonl").open("w", encoding="utf-8") as file:
        for number in range(items):
            row = {"id": str(number), "question": f"What is {number} modulo 7?", "options": [], "level": 1,
                   "answer": str(number % 7), "image": "none.png", "subject": "counting"}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def child(root: Path) -> None:
    """Evaluate the records under ``root`` in this process and print its time and memory."""
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.run import evaluate
    from perf.stub_engine import StubEngine, StubPool
    from vold.execution import Execution

    model = root / "model"
    model.mkdir(exist_ok=True)
    (model / "model.safetensors").write_bytes(b"")
    wall, cpu = time.perf_counter(), time.process_time()
    config = EvalConfig(samples=SAMPLES, temperature=1.0, blind=True, engine="builtin")
    evaluate(
        config, model=model, data={"mathvision": root / "data"}, run=root / "run", seed=0, execution=Execution(),
        engines=StubPool(StubEngine),
    )  # fmt: skip
    # Not ru_maxrss, which starts with the size of the parent process.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    cost = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak_mb": peak}
    print(json.dumps({**cost, "torch": "torch" in sys.modules}))


def measure_size(samples: int) -> dict[str, Any]:
    """The cost of a run from the start, and of one from a complete log."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_records(root / "data", samples // SAMPLES)
        command = [sys.executable, "-m", "perf.eval_scale", "--child", str(root)]
        first, again = (
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(2)
        )
    return {**first, "resumed": again}


def plot(sizes: Sequence[int], rows: Sequence[dict[str, Any]], out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "eval_scale"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(sizes, [row["cpu"] for row in rows], "o-", label="from the start")
    left.plot(sizes, [row["resumed"]["cpu"] for row in rows], "s--", label="from a complete log")
    left.set(xlabel="samples", ylabel="processor seconds", xlim=(0, None), ylim=(0, None))
    left.legend(frameon=False)
    right.plot(sizes, [row["peak_mb"] for row in rows], "o-")
    right.axhline(MEMORY_GOAL_MB, color="grey", linestyle=":")
    right.set(xlabel="samples", ylabel="peak memory in MB", xlim=(0, None), ylim=(0, None))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 25000])
    parser.add_argument("--out", type=Path, help="Path of the plot.")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    rows = [measure_size(size) for size in options.sizes]
    print("| samples | CPU s | CPU ms per sample | wall s | peak MB | CPU s from a complete log | torch imported |")
    print("|---|---|---|---|---|---|---|")
    for size, row in zip(options.sizes, rows, strict=True):
        cells = f"{row['cpu']:.1f} | {1000 * row['cpu'] / size:.2f} | {row['wall']:.1f} | {row['peak_mb']:.0f}"
        print(f"| {size:,} | {cells} | {row['resumed']['cpu']:.1f} | {'yes' if row['torch'] else 'no'} |")
    if options.out:
        plot(options.sizes, rows, options.out)
    return None


if __name__ == "__main__":
    main()
