"""Side by side on the small world: this trainer and TRL's GRPOTrainer, the same steps on the same machine.

``python -m perf.trainer`` cold-starts the bundled student once and then runs every side in a process of its own, in
alternating order; it prints ratios of pairs that ran next to each other. Higher is better for this trainer.
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

from perf.trial import STAGES, Measured, Side, Trial

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``ours`` against TRL's plain GRPO; ``goal``: the ratio of step rates to reach."""

    name: str
    ours: Side
    images: bool
    goal: float


COMPARISONS = (
    Comparison("text: GRPO", "grpo", False, 3.0),
    Comparison("text: GRPO + teacher", "vold", False, 1.0),
    Comparison("images: GRPO", "grpo", True, 4.0),
)


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of one figure over the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def step_seconds(run: Measured) -> float:
    """The run's typical step."""
    return median(step.step for step in run.steps)


def cpu_seconds(run: Measured) -> float:
    """The processor time of the run's typical step."""
    return median(step.cpu for step in run.steps)


def tokens_per_second(run: Measured, stage: str) -> float | None:
    """Completion tokens a second of ``stage`` over all steps; None where the run has no such stage."""
    seconds = sum(getattr(step, stage) for step in run.steps)
    return sum(step.tokens for step in run.steps) / seconds if seconds > 0 else None


def completion_tokens(run: Measured) -> float:
    """Mean number of tokens sampled in a step."""
    return sum(step.tokens for step in run.steps) / len(run.steps)


def ratios(ours: Sequence[Measured], peer: Sequence[Measured]) -> dict[str, Spread]:
    """Ours over the peer's, repeat by repeat: step rates and completion tokens a second by stage; memory inverted.

    More than 1 is better for us throughout. A stage that one side lacks is left out. Raises ValueError when the
    numbers of repeats differ.
    """
    pairs = list(zip(ours, peer, strict=True))
    rows = {
        "step rate": Spread.of([step_seconds(b) / step_seconds(a) for a, b in pairs]),
        "step rate, processor time": Spread.of([cpu_seconds(b) / cpu_seconds(a) for a, b in pairs]),
    }
    for stage in ("step", *STAGES):
        rates = [(tokens_per_second(a, stage), tokens_per_second(b, stage)) for a, b in pairs]
        if all(a and b for a, b in rates):
            rows[f"{stage} tokens/s"] = Spread.of([a / b for a, b in rates if a and b])
    rows["peak memory"] = Spread.of([b.peak_mb / a.peak_mb for a, b in pairs])
    rows["memory grown"] = Spread.of([b.grown_mb / a.grown_mb for a, b in pairs])
    return rows


def table(runs: dict[tuple[Side, bool], list[Measured]]) -> str:
    """Two Markdown tables: each side's own figures, and the ratios of every comparison that was run."""
    lines = [
        "| side | ms a step | tokens a step | " + " | ".join(f"{stage} tok/s" for stage in STAGES) + " | peak MB |",
        "|---|" + "---|" * (3 + len(STAGES)),
    ]
    for (side, images), measured in runs.items():
        rates = [[r for run in measured if (r := tokens_per_second(run, stage))] for stage in STAGES]
        cells = [
            f"{'images' if images else 'text'}: {side}",
            f"{median(map(step_seconds, measured)) * 1e3:.0f}",
            f"{median(map(completion_tokens, measured)):.0f}",
            *(f"{median(values):,.0f}" if values else "" for values in rates),
            f"{median(run.peak_mb for run in measured):.0f}",
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
    """The small profile's first stage: the bundled student after SFT on the teacher's traces."""
    from bench.smallworld import checkpoint_path
    from bench.smallworld.prompts import write_prompts
    from perf.trial import SEED, recipe
    from vold.config import Execution, SFTConfig, TracesConfig
    from vold.training.sft import train_sft
    from vold.training.traces import write_traces

    prompts, traces, run = directory / "prompts.jsonl", directory / "traces", directory / "sft"
    write_prompts("sft", 1024, prompts)
    execution = Execution(device="cpu", threads=1)
    write_traces(
        TracesConfig.model_validate(recipe("traces")),
        writer=checkpoint_path("teacher"), prompts=prompts, run=traces, seed=SEED, execution=execution,
    )  # fmt: skip
    train_sft(
        SFTConfig.model_validate(recipe("sft")),
        student=checkpoint_path("student_a"), traces=traces / "out" / "traces.jsonl", run=run, seed=SEED,
        execution=execution,
    )  # fmt: skip
    return run / "out"


def run_trial(trial: Trial) -> Measured:
    """Run one trial in a fresh process; raises RuntimeError with the end of its messages when it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(trial.threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "perf.run_trial", json.dumps(asdict(trial))],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{trial.side} failed:\n{done.stderr[-2000:]}")
    return Measured.from_json(done.stdout.splitlines()[-1])


def alternate(student: str, options: argparse.Namespace) -> dict[tuple[Side, bool], list[Measured]]:
    """Every side once a repeat, each repeat in the reverse order of the one before."""
    runs: dict[tuple[Side, bool], list[Measured]] = {}
    for repeat in range(options.repeats):
        for images in options.images:
            sides: list[Side] = ["grpo", "trl"] if images else ["grpo", "trl", "vold"]
            for side in sides if repeat % 2 == 0 else reversed(sides):
                trial = Trial(side, student, images, options.threads, options.warmup, options.steps, {})
                run = run_trial(trial)
                runs.setdefault((side, images), []).append(run)
                kind = "images" if images else "text"
                print(f"{repeat + 1} {kind}: {side} {step_seconds(run):.2f} s a step", file=sys.stderr)
    return runs


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        runs = alternate(options.student or str(cold_start(Path(scratch))), options)
    if options.out:
        options.out.write_text("".join(json.dumps(asdict(run)) + "\n" for side in runs.values() for run in side))
    print(table(runs))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", help="a cold-started checkpoint; made from the bundled one (a minute) when absent")
    parser.add_argument("--repeats", type=int, default=5, help="alternating runs of every side")
    parser.add_argument("--steps", type=int, default=8, help="measured steps a run")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", dest="images", choices=("text", "images"))
    parser.add_argument("--out", type=Path, help="write every run's steps there as JSONL")
    options = parser.parse_args()
    options.images = {"text": [False], "images": [True]}.get(options.images, [False, True])
    return options


if __name__ == "__main__":
    main()
