"""Pretraining of the bundled checkpoints from random weights: ``vold-bench smallworld build``."""

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

# The least share of each skill. A model below its gate is not published, because the experiments need its skills.
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
    """The source of one checkpoint: its seed, and the notation of a teacher (None for a student)."""

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


def recipe_of(blueprint: Blueprint) -> "Recipe":
    """The recipe of a checkpoint: one for both students, one for the three teachers."""
    from bench.smallworld.pretrain import Recipe

    if blueprint.notation is None:
        return Recipe(steps=1650, text_batch=64, picture_batch=32, text_steps=1200, align_steps=120)
    return Recipe(steps=600, text_batch=64)


def build_checkpoints(out: Path, names: Sequence[str] = CHECKPOINTS, jobs: int = 2) -> dict[str, dict[str, float]]:
    """Train ``names`` in ``jobs`` parallel processes of one thread each, and return the skills of each model.

    Deterministic on one machine. Raises RuntimeError when a model misses its gate; the other models are published.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        skills = dict(zip(names, pool.map(_build_one, names, [out] * len(names)), strict=True))
    missed = {name: below for name, measured in skills.items() if (below := _below_gate(name, measured))}
    if missed:
        raise RuntimeError(
            f"models below their gate were not published: {missed}; lengthen the recipe in bench/smallworld/build.py"
        )
    return skills


def _below_gate(name: str, skills: dict[str, float]) -> dict[str, float]:
    """The skills of a model that are below its gate."""
    return {skill: skills[skill] for skill, least in BLUEPRINTS[name].gate.items() if skills[skill] < least}


def _build_one(name: str, out: Path) -> dict[str, float]:
    import torch

    from bench.smallworld.models import new_student, new_teacher
    from bench.smallworld.pretrain import Batcher, StudentPretraining, TeacherPretraining, pretrain
    from bench.smallworld.tokenizer import build_tokenizer

    torch.set_num_threads(1)
    blueprint = BLUEPRINTS[name]
    plan = recipe_of(blueprint)
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
    # Published weights are bf16, so the skills are measured on weights rounded to bf16.
    task.model.to(torch.bfloat16).to(torch.float32)
    skills = task.skills(generator(blueprint.seed, "probe", "published"), 2000)
    if not _below_gate(name, skills):
        _publish(task, out / name, {"blueprint": asdict(blueprint), "recipe": asdict(plan), "skills": skills})
    return skills


def _publish(task: "StudentPretraining | TeacherPretraining", directory: Path, card: dict[str, Any]) -> None:
    """Write the bf16 checkpoint as a Hugging Face directory with its recipe and the hash of its weights."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    task.model.to(torch.bfloat16).save_pretrained(directory)
    task.batcher.tokenizer.save_pretrained(directory)
    if card["blueprint"]["notation"] is None:
        task.batcher.image_processor.save_pretrained(directory)
    weights = (directory / "model.safetensors").read_bytes()
    # The same recipe gives the same bytes only on the same kind of processor, because torch's kernels differ.
    processor = torch.backends.cpu.get_cpu_capability()
    card |= {
        "torch": torch.__version__,
        "processor": processor,
        "sha256": sha256(weights).hexdigest(),
        "synthetic": True,
    }
    (directory / "recipe.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
