"""A comparison of evaluation harnesses on the same records, the same server and as many concurrent requests.

    python -m perf.eval_peers --items 304 1000 --latency 1 --repeats 3
    python -m perf.eval_peers --sides straight,vold-bench,lmms-eval --lmms-python PATH/TO/python

A stub server waits ``--latency`` seconds before each reply of about two kilobytes. Every harness sends it one request
per MMMU-Pro page of the small world, with the image. It reads the letter from the reply without a judge, and writes
results and table like its own command. Every run is a process of its own, and the sides alternate. Clocks start after
a harness is imported and its records are written in its own format. CPU time includes all processes that a run starts.
*straight* is the client of this suite alone. The code of the peers is unchanged, except that the checksums of
VLMEvalKit's downloads are cleared for a local file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from perf.scoring import processor_seconds

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = "mmmu_pro"
IN_FLIGHT = 32
MAX_TOKENS = 2048
REPLY = "Let us see what stands in the image, step by step. " * 40 + "\nAnswer: B"
INSTRUCTION = "Answer the question in the image. Think first. The last line is 'Answer: X' with the option's letter."
LETTER = {"function": "regex", "regex_pattern": r"Answer: ([A-J])"}
FILTERS = [{"name": "letter", "filter": [LETTER, {"function": "take_first"}]}]
METRICS = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
"""In the format of lm-eval and lmms-eval."""
MODEL = "stub"


@dataclass(frozen=True, slots=True)
class HarnessInputs:
    """The URL of the server, the directory of the records, and an empty directory."""

    url: str
    data: Path
    scratch: Path

    def rows(self) -> list[dict[str, Any]]:
        """The records in the format of the peers."""
        from bench.benchmarks.registry import read_benchmark

        return [
            {"index": number, "id": p.id, "image": str(p.images[0]), "options": list(p.options), "answer": p.answer}
            for number, p in enumerate(read_benchmark(BENCHMARK, self.data).problems)
        ]


@dataclass(frozen=True, slots=True)
class HarnessRun:
    """One run of a harness.

    start: seconds to import it. wall, cpu: seconds on the clock and on processors.
    right: number of right replies; -1 where replies are not read.
    """

    side: str
    items: int
    start: float
    wall: float
    cpu: float
    right: int


PrepareHarness = Callable[[HarnessInputs], Callable[[], int]]
"""Imports a harness and writes its records. The returned function evaluates them and counts right replies."""


def prepare_straight(inputs: HarnessInputs) -> Callable[[], int]:
    from perf.eval_overhead import answer_straight

    engine, config = _chat(inputs)

    def work() -> int:
        answer_straight(engine, config, {BENCHMARK: inputs.data})
        engine.close()
        return -1

    return work


def prepare_vold_bench(inputs: HarnessInputs) -> Callable[[], int]:
    import bench.evaluation.parquet_tables
    import bench.stats.samples  # noqa: F401  both would be imported later
    from bench.engines.endpoint import write_endpoint
    from bench.evaluation.run import evaluate
    from perf.stub_engine import StubPool
    from vold.execution import Execution

    engine, config = _chat(inputs)
    model, run = write_endpoint(f"{inputs.url}#{MODEL}", inputs.scratch), inputs.scratch / "run"

    def work() -> int:
        evaluate(
            config, model=model, data={BENCHMARK: inputs.data}, run=run, seed=0, execution=Execution(),
            engines=StubPool(lambda: engine),
        )  # fmt: skip
        engine.close()
        return json.loads((run / "out" / "summary.json").read_text())["benchmarks"][BENCHMARK]["states"]["right"]

    return work


def _chat(inputs: HarnessInputs) -> tuple[Any, Any]:
    """The client of this suite with a fixed number of concurrent requests, like the peers, and its configuration."""
    from bench.engines.client import Endpoint
    from bench.engines.openai import ChatEngine, MessagePreparer
    from bench.evaluation.config import EvalConfig
    from vold.execution import ClientExecution

    client = ClientExecution(concurrency=IN_FLIGHT, max_concurrency=IN_FLIGHT)
    engine = ChatEngine([Endpoint(inputs.url, None, client)], MODEL, client, MessagePreparer())
    return engine, EvalConfig(engine="openai", template="cot@1", max_tokens=MAX_TOKENS)


def prepare_vlmevalkit(inputs: HarnessInputs) -> Callable[[], int]:
    """``run.py`` with an API model: ``infer_data_job`` and the data set's own evaluation by exact matching."""
    import base64

    import pandas as pd

    import vold  # noqa: F401  before torchvision

    os.environ["LMUData"] = str(inputs.scratch)  # noqa: SIM112  its name
    os.environ["VLMEVAL_MIN_IMAGE_EDGE"] = "1"  # images go as they are
    from vlmeval.api.gpt import OpenAIWrapper
    from vlmeval.dataset.image_mcq import MMMUProDataset
    from vlmeval.inference import infer_data_job

    name = "MMMU_Pro_V_COT"
    MMMUProDataset.DATASET_MD5 = {}
    rows = [
        {
            "index": row["index"], "question": "", "answer": row["answer"],
            **dict(zip("ABCDEFGHIJ", row["options"], strict=False)),
            "image": base64.b64encode(Path(row["image"]).read_bytes()).decode(),
        }
        for row in inputs.rows()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(inputs.scratch / f"{name}.tsv", sep="\t", index=False)

    def work() -> int:
        dataset = MMMUProDataset(dataset=name)
        model = OpenAIWrapper(MODEL, key="none", api_base=f"{inputs.url}/chat/completions", max_tokens=MAX_TOKENS)
        infer_data_job(model, str(inputs.scratch), MODEL, dataset, api_nproc=IN_FLIGHT)
        accuracy: Any = dataset.evaluate(
            str(inputs.scratch / f"{MODEL}_{name}.xlsx"), model="exact_matching", nproc=IN_FLIGHT
        )
        return round(accuracy["Overall"][0] * len(rows))

    return work


def prepare_lm_eval(inputs: HarnessInputs) -> Callable[[], int]:
    """``simple_evaluate`` with its client for chat servers, results and samples written."""
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.openai_completions import LocalChatCompletion
    from PIL import Image

    # Their decorators hide what both take from a type checker.
    client: Any = LocalChatCompletion
    evaluate: Any = simple_evaluate
    rows = [{"image": row["image"], "answer": row["answer"]} for row in inputs.rows()]

    def work() -> int:
        task = ConfigurableTask(
            config={
                "task": BENCHMARK,
                "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": INSTRUCTION,
                "doc_to_image": lambda doc: [Image.open(doc["image"])],
                "doc_to_target": "{{answer}}",
                "filter_list": FILTERS,
                "metric_list": METRICS,
                "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": MAX_TOKENS},
                "num_fewshot": 0,
                "metadata": {"version": 1},
            }
        )  # fmt: skip
        model = client(
            base_url=f"{inputs.url}/chat/completions", model=MODEL, num_concurrent=IN_FLIGHT, max_length=4096
        )
        tracker = EvaluationTracker(output_path=str(inputs.scratch))
        results = evaluate(model, tasks=[task], apply_chat_template=True, evaluation_tracker=tracker)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples)
        tracker.save_results_samples(task_name=BENCHMARK, samples=samples[BENCHMARK])
        return round(results["results"][BENCHMARK]["exact_match,letter"] * len(rows))

    return work


def prepare_lmms_eval(inputs: HarnessInputs) -> Callable[[], int]:
    """``simple_evaluate`` with its asynchronous client, results and samples written."""
    import vold  # noqa: F401  before torchvision

    os.environ["HF_DATASETS_CACHE"] = str(inputs.scratch / "cache")
    from lmms_eval.api.task import ConfigurableMessagesTask  # pyright: ignore[reportMissingImports]
    from lmms_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lmms_eval.loggers import EvaluationTracker  # pyright: ignore[reportMissingImports]
    from lmms_eval.models.chat.async_openai import AsyncOpenAIChat  # pyright: ignore[reportMissingImports]
    from PIL import Image

    rows, records = inputs.rows(), inputs.scratch / "records.jsonl"
    records.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def work() -> int:
        task = ConfigurableMessagesTask(
            config={
                "task": BENCHMARK,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(records)}},
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_visual": lambda doc: [Image.open(doc["image"]).convert("RGB")],
                "doc_to_text": lambda doc: INSTRUCTION,
                "doc_to_target": "answer",
                "filter_list": FILTERS,
                "metric_list": METRICS,
                "generation_kwargs": {"max_new_tokens": MAX_TOKENS, "temperature": 0, "do_sample": False},
                "metadata": {"version": 1},
            },
            model_name="async_openai",
        )
        model = AsyncOpenAIChat(model_version=MODEL, base_url=inputs.url, api_key="none", num_cpus=IN_FLIGHT)
        tracker = EvaluationTracker(output_path=str(inputs.scratch / "results"))
        results: Any = simple_evaluate(model, tasks=[task], evaluation_tracker=tracker)
        samples = results.pop("samples")
        tracker.save_results_aggregated(results=results, samples=samples, datetime_str="now")
        tracker.save_results_samples(task_name=BENCHMARK, samples=samples[BENCHMARK])
        return round(results["results"][BENCHMARK]["exact_match,letter"] * len(rows))

    return work


SIDES: dict[str, PrepareHarness] = {
    "straight": prepare_straight,
    "vold-bench": prepare_vold_bench,
    "VLMEvalKit": prepare_vlmevalkit,
    "lm-eval": prepare_lm_eval,
    "lmms-eval": prepare_lmms_eval,
}


def measure_harness(side: str, inputs: HarnessInputs) -> HarnessRun:
    start = time.perf_counter()
    work = SIDES[side](inputs)
    wall, cpu = time.perf_counter(), processor_seconds()
    right = work()
    took = time.perf_counter() - wall, processor_seconds() - cpu
    return HarnessRun(side, len(inputs.rows()), wall - start, *took, right)


def run_harness(side: str, url: str, data: Path, python: str) -> HarnessRun:
    """``measure_harness`` in a fresh process of the interpreter ``python``, which reaches only the server."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "OMP_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as scratch:
        command = [python, "-m", "perf.eval_peers", "--measure", side, url, str(data), scratch]
        finished = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return HarnessRun(**json.loads(finished.stdout.splitlines()[-1]))


def medians(runs: Sequence[HarnessRun], side: str, items: int) -> HarnessRun | None:
    """The medians of a side at a size; None where it did not run."""
    own = [run for run in runs if run.side == side and run.items == items]
    if not own:
        return None
    start, wall, cpu = (median(getattr(run, name) for run in own) for name in ("start", "wall", "cpu"))
    return HarnessRun(side, items, start, wall, cpu, own[0].right)


def peer_table(runs: Sequence[HarnessRun]) -> str:
    """A row per side and number of problems. *added* is relative to straight."""
    lines = ["| harness | samples | right | to import, s | wall, s | added, % | CPU, s | added, s |", "|---" * 8 + "|"]
    for items in dict.fromkeys(run.items for run in runs):
        plain = medians(runs, "straight", items)
        assert plain is not None
        for side in SIDES:
            if run := medians(runs, side, items):
                cells = [side, f"{items:,}", str(run.right) if run.right >= 0 else "", f"{run.start:.1f}"]
                wall, cpu = f"{100 * (run.wall / plain.wall - 1):.1f}", f"{run.cpu - plain.cpu:.2f}"
                cells += [f"{run.wall:.2f}", wall, f"{run.cpu:.2f}", cpu]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_split(runs: Sequence[HarnessRun]) -> str:
    """The cost of each side beyond straight per run and per sample, from the smallest and the largest size."""
    sizes = sorted({run.items for run in runs})
    low, high = sizes[0], sizes[-1]
    lines = [
        "| harness, beyond straight | CPU per run, s | CPU per sample, ms | times vold-bench's | wall per run, s "
        "| wall per sample, ms |",
        "|---" * 6 + "|",
    ]

    def split(side: str, name: str) -> tuple[float, float]:
        """Seconds per run and per sample."""
        few, many = (
            getattr(medians(runs, side, items), name) - getattr(medians(runs, "straight", items), name)
            for items in (low, high)
        )
        each = (many - few) / (high - low)
        return few - each * low, each

    for side in SIDES:
        if side != "straight" and medians(runs, side, low):
            (once, each), (wall_once, wall_each) = split(side, "cpu"), split(side, "wall")
            cells = [side, f"{once:.2f}", f"{1000 * each:.2f}", f"{each / split('vold-bench', 'cpu')[1]:.1f}"]
            lines.append(f"| {' | '.join([*cells, f'{wall_once:.2f}', f'{1000 * wall_each:.2f}'])} |")
    return "\n".join(lines)


def main() -> None:
    from bench.smallworld.records import write_datasets
    from tests.helpers.stub_server import stub_server

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[304])
    parser.add_argument("--latency", type=float, default=1.0, help="Seconds before each reply of the stub server.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sides", default=",".join(list(SIDES)[:-1]), help="Sides to run; straight and vold-bench must be among them."
    )
    parser.add_argument("--lmms-python", default=sys.executable, help="Python interpreter with lmms-eval.")
    parser.add_argument("--measure", nargs=4, metavar=("SIDE", "URL", "DATA", "SCRATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        side, url, data, scratch = options.measure
        with redirect_stdout(sys.stderr):  # peers print
            result = measure_harness(side, HarnessInputs(url, Path(data), Path(scratch)))
        print(json.dumps(asdict(result)))
        return
    replies = json.dumps({"": REPLY})
    runs: list[HarnessRun] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        stub_server("--latency", str(options.latency), "--replies", replies) as (url, _),
    ):
        for items in options.items:
            data = write_datasets("test", items, Path(scratch))[BENCHMARK]
            for number in range(options.repeats):
                sides = options.sides.split(",")[:: 1 - 2 * (number % 2)]
                pythons = {"lmms-eval": options.lmms_python}
                runs += [run_harness(side, url, data, pythons.get(side, sys.executable)) for side in sides]
    print(peer_table(runs))
    if len(options.items) > 1:
        print(f"\n{cost_split(runs)}")


if __name__ == "__main__":
    main()
