"""Train the bundled checkpoints from nothing: ``vold-bench smallworld build``."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.smallworld import CHECKPOINTS
from bench.smallworld.notation import Notation
from vold.seeding import generator

if TYPE_CHECKING:
    from bench.smallworld.pretrain import Recipe, StudentPretraining, TeacherPretraining

# A model that misses its gate is not published: the experiments need skills, not steps.
TEACHER_GATE = {"solve": 0.97}
STUDENT_GATE = {
    "text/drill": 0.97,
    "text/pick": 0.9,
    "text/first-ledger": 0.97,
    "text/first-tape": 0.97,
    "picture/read": 0.97,
    "picture/first-ledger": 0.95,
    "picture/first-tape": 0.95,
}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a checkpoint is made from."""

    name: str
    seed: int
    notation: Notation | None

    @property
    def gate(self) -> dict[str, float]:
        return STUDENT_GATE if self.notation is None else TEACHER_GATE


BLUEPRINTS: dict[str, Blueprint] = {
    "student_a": Blueprint("student_a", 1, None),
    "student_b": Blueprint("student_b", 2, None),
    "teacher": Blueprint("teacher", 1, "ledger"),
    "teacher_other": Blueprint("teacher_other", 3, "list"),
    "teacher_far": Blueprint("teacher_far", 2, "tape"),
}


def recipe(blueprint: Blueprint) -> "Recipe":
    """One recipe for both students, one for the three teachers."""
    from bench.smallworld.pretrain import Recipe

    if blueprint.notation is None:
        return Recipe(steps=1650, text_batch=64, picture_batch=32, text_steps=1200, align_steps=120)
    return Recipe(steps=600, text_batch=64)


def build(out: Path, names: Sequence[str] = CHECKPOINTS, jobs: int = 2) -> dict[str, dict[str, float]]:
    """Train ``names`` side by side, one thread each, and return the skills of each.

    Deterministic on one machine. Raises RuntimeError when a model misses its gate; the others are kept.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        skills = dict(zip(names, pool.map(_build_one, names, [out] * len(names)), strict=True))
    missed = {
        name: short
        for name, measured in skills.items()
        if (short := {key: measured[key] for key, least in BLUEPRINTS[name].gate.items() if measured[key] < least})
    }
    if missed:
        raise RuntimeError(f"models below their gate were not kept: {missed}; lengthen the recipe in bench/smallworld")
    return skills


def _build_one(name: str, out: Path) -> dict[str, float]:
    import torch

    from bench.smallworld.models import new_student, new_teacher
    from bench.smallworld.pretrain import Batcher, StudentPretraining, TeacherPretraining, pretrain
    from bench.smallworld.tokenizer import build_tokenizer

    torch.set_num_threads(1)
    blueprint = BLUEPRINTS[name]
    plan = recipe(blueprint)
    batcher = Batcher(build_tokenizer())
    task: StudentPretraining | TeacherPretraining
    if blueprint.notation is None:
        task = StudentPretraining(new_student(batcher.tokenizer, blueprint.seed), batcher, plan)
    else:
        task = TeacherPretraining(new_teacher(batcher.tokenizer, blueprint.seed), batcher, blueprint.notation, plan)

    def report(step: int, measured: dict[str, float]) -> None:
        figures = " ".join(f"{key}={value:.2f}" for key, value in measured.items())
        print(f"{name} step {step}/{plan.steps} {figures}", flush=True)

    pretrain(task, blueprint.seed, report)
    # The published weights are bf16: what is measured and gated is what is stored.
    task.model.to(torch.bfloat16).to(torch.float32)
    skills = task.skills(generator(blueprint.seed, "probe", "published"), 2000)
    if all(skills[key] >= least for key, least in blueprint.gate.items()):
        _publish(task, out / name, {"blueprint": asdict(blueprint), "recipe": asdict(plan), "skills": skills})
    return skills


def _publish(task: "StudentPretraining | TeacherPretraining", directory: Path, card: dict[str, Any]) -> None:
    """Write the bf16 checkpoint in Hugging Face form with its recipe and hash."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    task.model.to(torch.bfloat16).save_pretrained(directory)
    task.batcher.tokenizer.save_pretrained(directory)
    if card["blueprint"]["notation"] is None:
        task.batcher.image_processor.save_pretrained(directory)
    weights = (directory / "model.safetensors").read_bytes()
    # The same recipe gives the same bytes on one kind of processor: torch's kernels differ between kinds.
    processor = torch.backends.cpu.get_cpu_capability()
    card |= {
        "torch": torch.__version__,
        "processor": processor,
        "sha256": sha256(weights).hexdigest(),
        "synthetic": True,
    }
    (directory / "recipe.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
