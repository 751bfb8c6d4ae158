"""One measured run of the small world's RL stage: its settings, its prompts, and what is told of its steps."""

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
"""So small that the policy, and with it the length of its completions, stays that of the checkpoint."""

STAGES = ("rollout", "reward", "teacher", "train")
"""What is timed within a step; drawing and tokenising prompts, padding and metrics show in ``step`` alone."""

Side = Literal["grpo", "vold", "trl"]


@dataclass(frozen=True, slots=True)
class Trial:
    """``grpo``: this trainer without a teacher; ``vold``: with the teacher term; ``trl``: TRL's GRPOTrainer.

    ``student``: a checkpoint directory. ``rl``: settings of ``RLConfig`` over those of the small profile.
    """

    side: Side
    student: str
    images: bool
    threads: int
    warmup: int
    steps: int
    rl: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of one step and of its stages; ``tokens``: sampled in it, stop tokens included.

    ``cpu``: processor seconds of the whole step, which other work on the machine disturbs less than the clock's.
    """

    tokens: int
    cpu: float
    step: float
    rollout: float
    reward: float
    train: float
    teacher: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The steps after the warm-up, and resident memory: its peak, and what came after the first step had ended."""

    side: Side
    images: bool
    steps: tuple[Step, ...]
    peak_mb: float
    grown_mb: float

    @classmethod
    def from_json(cls, text: str) -> "Measured":
        row = json.loads(text)
        return cls(**{**row, "steps": tuple(Step(**step) for step in row["steps"])})


def recipe(kind: str) -> dict[str, Any]:
    """The small profile's settings of one kind of stage."""
    from bench.matrix.profile import load_profile

    return load_profile(PROFILE).settings.stages[kind]


def rl_config(trial: Trial) -> "RLConfig":
    """The small profile's RL stage, for as many steps as the trial has."""
    from vold.config import RLConfig

    settings = {
        **recipe("rl"),
        "steps": trial.warmup + trial.steps,
        "optimizer": {"learning_rate": LEARNING_RATE},
        **({} if trial.side == "vold" else {"distill": {"weight": 0}}),
        **trial.rl,
    }
    return RLConfig.model_validate(settings)


def materialise(trial: Trial, directory: Path) -> Path:
    """As many training problems as the trial draws, as JSONL; with their images beside it where asked for."""
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
    """This process's resident memory in MB, now or at its peak.

    From /proc: ``getrusage`` counts the peak of the process that this one was started from as its own.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
