"""Trials: measured runs of the RL stage of the small world, with their settings, prompts and results."""

import json
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu

if TYPE_CHECKING:
    from vold.config import RLConfig

PROFILE = Path(__file__).resolve().parents[1] / "ablations" / "profiles" / "small.yaml"
SEED = 1
LEARNING_RATE = 1e-6
"""So small that the policy, and with it the length of completions, stays that of the checkpoint."""

STAGES = ("rollout", "reward", "teacher", "train")
"""The timed parts of a step. Drawing and tokenising prompts, padding and metrics count only in ``step``."""

TrialSide = Literal["grpo", "vold", "trl"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured run.

    side: ``grpo`` is this trainer without a teacher, ``vold`` with the teacher term, ``trl`` is TRL's GRPOTrainer.
    student: a checkpoint directory.
    rl: settings of ``RLConfig`` that replace those of the small profile.
    """

    side: TrialSide
    student: str
    images: bool
    threads: int
    warmup: int
    steps: int
    rl: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step and of its stages on the clock.

    tokens: number of sampled tokens, including stop tokens.
    cpu: processor seconds of the step, which other work on the machine disturbs less than clock time.
    """

    tokens: int
    cpu: float
    step: float
    rollout: float
    reward: float
    train: float
    teacher: float = 0.0


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The steps after the warm-up, and resident memory: its peak, and its growth after the first step."""

    side: TrialSide
    images: bool
    steps: tuple[Step, ...]
    peak_mb: float
    grown_mb: float

    @classmethod
    def from_json(cls, text: str) -> "TrialResult":
        row = json.loads(text)
        return cls(**{**row, "steps": tuple(Step(**step) for step in row["steps"])})


def profile_settings(kind: str) -> dict[str, Any]:
    """The settings of one kind of stage in the small profile."""
    from bench.matrix.profile import load_profile

    return load_profile(PROFILE).settings.stages[kind]


def rl_config(trial: Trial) -> "RLConfig":
    """The RL configuration of the small profile, for the steps of the trial."""
    from vold.config import RLConfig

    settings = {
        **profile_settings("rl"),
        "steps": trial.warmup + trial.steps,
        "optimizer": {"learning_rate": LEARNING_RATE},
        **({} if trial.side == "vold" else {"distill": {"weight": 0}}),
        **trial.rl,
    }
    return RLConfig.model_validate(settings)


def write_trial_prompts(trial: Trial, directory: Path) -> Path:
    """Write the training problems that the trial draws as JSONL, with images next to the file where it uses images."""
    from PIL import Image

    from bench.smallworld.problems import stream
    from bench.smallworld.prompts import DATA_SEED, as_prompt
    from bench.smallworld.records import question
    from bench.smallworld.render import render_problem
    from vold.seeding import generator

    config, path = rl_config(trial), directory / "prompts.jsonl"
    problems = islice(stream(DATA_SEED, "rl", "train"), config.steps * config.prompts_per_step)
    with path.open("w", encoding="utf-8") as file:
        for index, problem in enumerate(problems):
            row = asdict(as_prompt(problem, index))
            if trial.images:
                image = directory / f"{index}.png"
                Image.fromarray(render_problem(problem, generator(DATA_SEED, "perf", index))).save(image)
                row |= {"text": question(problem), "images": [image.name]}
            file.write(json.dumps(row) + "\n")
    return path


def memory_mb(field: Literal["VmRSS", "VmHWM"]) -> float:
    """The resident memory of this process in MB, now (VmRSS) or at its peak (VmHWM).

    It is read from /proc, because ``getrusage`` includes the peak of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
