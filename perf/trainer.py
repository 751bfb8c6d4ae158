"""A comparison of this trainer with TRL's GRPOTrainer: the same steps of the small world on the same machine.

``python -m perf.trainer`` cold-starts the bundled student once. Then it runs every side in a process of its own, in
alternating order, and prints ratios of neighbouring runs. Higher is better for this trainer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from perf.trial import STAGES, Trial, TrialResult, TrialSide

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class TrainerComparison:
    """The side ``ours`` against TRL's plain GRPO. ``goal`` is the ratio of step rates to reach."""

    name: str
    ours: TrialSide
    images: bool
    goal: float


COMPARISONS = (
    TrainerComparison("text: GRPO", "grpo", False, 3.0),
    TrainerComparison("text: GRPO + teacher", "vold", False, 1.0),
    TrainerComparison("images: GRPO", "grpo", True, 4.0),
)


@dataclass(frozen=True, slots=True)
class MedianRange:
    """The median and the range of one figure over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "MedianRange":
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def step_seconds(run: TrialResult) -> float:
    """The median seconds of a step on the clock."""
    return median(step.step for step in run.steps)


def cpu_seconds(run: TrialResult) -> float:
    """The median processor seconds of a step."""
    return median(step.cpu for step in run.steps)


def tokens_per_second(run: TrialResult, stage: str) -> float | None:
    """Completion tokens per second of ``stage`` over all steps; None where the run does not have the stage."""
    seconds = sum(getattr(step, stage) for step in run.steps)
    return sum(step.tokens for step in run.steps) / seconds if seconds > 0 else None


def completion_tokens(run: TrialResult) -> float:
    """The mean number of sampled tokens per step."""
    return sum(step.tokens for step in run.steps) / len(run.steps)


def ratios(ours: Sequence[TrialResult], peer: Sequence[TrialResult]) -> dict[str, MedianRange]:
    """The ratios of our figures to those of the peer, repeat by repeat; above 1 is always better for us.

    The figures are step rates, completion tokens per second by stage, and memory, whose ratio is inverted. A stage that
    one side does not have is left out. Raises ValueError when the numbers of repeats differ.
    """
    pairs = list(zip(ours, peer, strict=True))
    rows = {
        "step rate": MedianRange.of([step_seconds(b) / step_seconds(a) for a, b in pairs]),
        "step rate, processor time": MedianRange.of([cpu_seconds(b) / cpu_seconds(a) for a, b in pairs]),
    }
    for stage in ("step", *STAGES):
        rates = [(tokens_per_second(a, stage), tokens_per_second(b, stage)) for a, b in pairs]
        if all(a and b for a, b in rates):
            rows[f"{stage} tokens/s"] = MedianRange.of([a / b for a, b in rates if a and b])
    rows["peak memory"] = MedianRange.of([b.peak_mb / a.peak_mb for a, b in pairs])
    rows["memory grown"] = MedianRange.of([b.grown_mb / a.grown_mb for a, b in pairs])
    return rows


def comparison_table(runs: dict[tuple[TrialSide, bool], list[TrialResult]]) -> str:
    """Two Markdown tables: the figures of each side, and the ratios of every comparison that was run."""
    lines = [
        "| side | ms per step | tokens per step | " + " | ".join(f"{stage} tok/s" for stage in STAGES) + " | peak MB |",
        "|---|" + "---|" * (3 + len(STAGES)),
    ]
    for (side, images), results in runs.items():
        rates = [[r for run in results if (r := tokens_per_second(run, stage))] for stage in STAGES]
        cells = [
            f"{'images' if images else 'text'}: {side}",
            f"{median(map(step_seconds, results)) * 1e3:.0f}",
            f"{median(map(completion_tokens, results)):.0f}",
            *(f"{median(values):,.0f}" if values else "" for values in rates),
            f"{median(run.peak_mb for run in results):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| against TRL's GRPO | figure | median (range) | goal |", "|---|---|---|---|"]
    for comparison in COMPARISONS:
        ours, peer = (runs.get((side, comparison.images)) for side in (comparison.ours, "trl"))
        if not ours or not peer:
            continue
        for figure, spread in ratios(ours, peer).items():
            goal = f"{comparison.goal:g}" if figure == "step rate" else ""
            lines.append(f"| {comparison.name} | {figure} | {spread} | {goal} |")
    return "\n".join(lines)


def cold_start(directory: Path) -> Path:
    """The checkpoint of the first stage of the small profile: the bundled student after SFT on the teacher's traces."""
    from bench.smallworld import checkpoint_path
    from bench.smallworld.prompts import write_prompts
    from perf.trial import SEED, profile_settings
    from vold.config import SFTConfig, TracesConfig
    from vold.execution import Execution
    from vold.training.sft import train_sft
    from vold.training.traces import write_traces

    prompts, traces, run = directory / "prompts.jsonl", directory / "traces", directory / "sft"
    write_prompts("sft", 1024, prompts)
    execution = Execution(device="cpu", threads=1)
    write_traces(
        TracesConfig.model_validate(profile_settings("traces")),
        writer=checkpoint_path("teacher"), prompts=prompts, run=traces, seed=SEED, execution=execution,
    )  # fmt: skip
    train_sft(
        SFTConfig.model_validate(profile_settings("sft")),
        student=checkpoint_path("student_a"), traces=traces / "out" / "traces.jsonl", run=run, seed=SEED,
        execution=execution,
    )  # fmt: skip
    return run / "out"


def run_in_process(trial: Trial) -> TrialResult:
    """Run one trial in a fresh process. Raises RuntimeError with the end of its messages when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(trial.threads), "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(
        [sys.executable, "-m", "perf.run_trial", json.dumps(asdict(trial))],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if finished.returncode:
        raise RuntimeError(f"{trial.side} failed:\n{finished.stderr[-2000:]}")
    return TrialResult.from_json(finished.stdout.splitlines()[-1])


def alternate(student: str, options: argparse.Namespace) -> dict[tuple[TrialSide, bool], list[TrialResult]]:
    """Results of every side once per repeat. Each repeat has the reverse order of the previous one."""
    runs: dict[tuple[TrialSide, bool], list[TrialResult]] = {}
    for repeat in range(options.repeats):
        for images in options.images:
            sides: list[TrialSide] = ["grpo", "trl"] if images else ["grpo", "trl", "vold"]
            for side in sides if repeat % 2 == 0 else reversed(sides):
                trial = Trial(side, student, images, options.threads, options.warmup, options.steps, {})
                run = run_in_process(trial)
                runs.setdefault((side, images), []).append(run)
                kind = "images" if images else "text"
                print(f"{repeat + 1} {kind}: {side} {step_seconds(run):.2f} s per step", file=sys.stderr)
    return runs


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        runs = alternate(options.student or str(cold_start(Path(scratch))), options)
    if options.out:
        options.out.write_text("".join(json.dumps(asdict(run)) + "\n" for side in runs.values() for run in side))
    print(comparison_table(runs))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--student", help="A cold-started checkpoint; by default one is trained from the bundled student (one minute)."
    )
    parser.add_argument("--repeats", type=int, default=5, help="Alternating runs of every side.")
    parser.add_argument("--steps", type=int, default=8, help="Measured steps per run.")
    parser.add_argument("--warmup", type=int, default=2, help="Steps before the measured ones.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", dest="images", choices=("text", "images"))
    parser.add_argument("--out", type=Path, help="Write the steps of every run to this file as JSONL.")
    options = parser.parse_args()
    options.images = {"text": [False], "images": [True]}.get(options.images, [False, True])
    return options


if __name__ == "__main__":
    main()
