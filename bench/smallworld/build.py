"""Pretraining of the bundled checkpoints from random weights: ``vold-bench smallworld build``.

The teachers are trained first. A mirrored teacher is its original with the marks of its notation exchanged. The base
students are trained next, and measured after the standard cold start on traces of both teachers. Every model has a gate
of skills, and none is published below it.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import TYPE_CHECKING, Any

from bench.smallworld import CHECKPOINTS, checkpoint_path
from bench.smallworld.notation import MirroredNotation, Notation
from bench.smallworld.problems import apply, misread
from vold.seeding import generator

if TYPE_CHECKING:
    from bench.smallworld.pretrain import Recipe

Gate = Mapping[str, tuple[float, float]]
"""The least and the greatest allowed share of each skill."""

TEACHER_GATE: Gate = {"solve": (0.97, 1.0)}
_MIRRORED: tuple[MirroredNotation, ...] = ("ledger", "mirror")
_FORMS = ("text", "image")
STUDENT_GATE: Gate = {
    "text/drill": (0.97, 1.0),
    "text/pick": (0.9, 1.0),
    "image/read": (0.97, 1.0),
    **{f"{form}/{opening}": (0.95, 1.0) for form in _FORMS for opening in ("first", "second")},
    **{f"cold-start/{notation}/{form}": (0.40, 0.75) for form in _FORMS for notation in _MIRRORED},
    **{f"cold-start/{notation}/gap": (-0.05, 0.05) for notation in _MIRRORED},
}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The source of one checkpoint.

    notation: that of a teacher; None for a student.
    misreads: whether the teacher computes by the wrong rule ``misread``, so that many of its traces are wrong.
    mirror_of: the teacher whose weights it takes, with the marks exchanged; None: it is trained.
    """

    seed: int
    notation: Notation | None = None
    misreads: bool = False
    mirror_of: str | None = None

    @property
    def gate(self) -> Gate:
        return STUDENT_GATE if self.notation is None else TEACHER_GATE

    def misses(self, skills: Mapping[str, float]) -> dict[str, float]:
        """The skills that are outside of the gate."""
        return {name: skills[name] for name, (low, high) in self.gate.items() if not low <= skills[name] <= high}


BLUEPRINTS: dict[str, Blueprint] = {
    "student_a": Blueprint(1),
    "student_b": Blueprint(2),
    "student_c": Blueprint(3),
    "teacher": Blueprint(1, "ledger"),
    "teacher_mirror": Blueprint(1, "mirror", mirror_of="teacher"),
    "teacher_list": Blueprint(3, "list"),
    "teacher_tape": Blueprint(2, "tape"),
}


def recipe_of(blueprint: Blueprint) -> "Recipe":
    """The recipe of a checkpoint: one for all students, one for all teachers."""
    from bench.smallworld.pretrain import Recipe

    if blueprint.notation is None:
        return Recipe(steps=1450, text_batch=64, image_batch=32, text_steps=1000, align_steps=120)
    return Recipe(steps=600, text_batch=64)


def build_checkpoints(out: Path, names: Sequence[str] = CHECKPOINTS, jobs: int = 2) -> dict[str, dict[str, float]]:
    """Train ``names`` in ``jobs`` parallel processes of one thread each, and return the skills of each model.

    A student is measured with the traces of the teachers in ``out``, or of the bundled ones where ``out`` has none.
    Deterministic on one machine. Raises RuntimeError when a model misses its gate; the other models are published.
    """
    out.mkdir(parents=True, exist_ok=True)
    skills: dict[str, dict[str, float]] = {}
    with (
        TemporaryDirectory(prefix=".build-", dir=out) as folder,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        work = Path(folder)
        trained = [name for name in names if BLUEPRINTS[name].mirror_of is None]
        teachers = [name for name in trained if BLUEPRINTS[name].notation]
        students = [name for name in trained if name not in teachers]
        # The longest trainings start first, and teachers train next to the last of them.
        results = dict(zip(students + teachers, pool.map(_train, students + teachers, repeat(work)), strict=True))
        for name in teachers:
            skills[name] = results[name]
            _publish(name, skills[name], work, out)
        for name in set(names) - set(trained):
            skills[name] = _mirror(name, out)
        if students:
            measured = _cold_starts(students, out, work, pool)
            for name in students:
                skills[name] = results[name] | measured[name]
                _publish(name, skills[name], work, out)
    missed = {name: misses for name in names if (misses := BLUEPRINTS[name].misses(skills[name]))}
    if missed:
        raise RuntimeError(
            f"models outside their gate were not published: {missed}; change the recipe in bench/smallworld/build.py"
        )
    return skills


def _train(name: str, work: Path) -> dict[str, float]:
    """Train one model, write its checkpoint under ``work`` and return its skills."""
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
        rule = misread if blueprint.misreads else apply
        model = new_teacher(batcher.tokenizer, blueprint.seed)
        task = TeacherPretraining(model, batcher, blueprint.notation, plan, rule)

    def report(step: int, measured: dict[str, float]) -> None:
        figures = " ".join(f"{key}={value:.2f}" for key, value in measured.items())
        print(f"{name} step {step}/{plan.steps} {process_time():.0f} CPU-seconds {figures}", flush=True)

    pretrain(task, blueprint.seed, report)
    # Published weights are bf16, so the skills are measured on weights rounded to bf16.
    task.model.to(torch.bfloat16).to(torch.float32)
    skills = task.skills(generator(blueprint.seed, "probe", "published"), 2000)
    task.model.to(torch.bfloat16).save_pretrained(work / name)
    task.batcher.tokenizer.save_pretrained(work / name)
    if blueprint.notation is None:
        task.batcher.image_processor.save_pretrained(work / name)
    return skills


def _mirror(name: str, out: Path) -> dict[str, float]:
    """Publish the mirror image of a teacher and return its skills, which are those of its original."""
    from bench.smallworld.models import exchange_marks

    original = BLUEPRINTS[name].mirror_of
    assert original is not None
    source = _teacher_path(original, out)
    shutil.rmtree(out / name, ignore_errors=True)
    shutil.copytree(source, out / name)
    exchange_marks(out / name / "model.safetensors")
    skills: dict[str, float] = json.loads((source / "recipe.json").read_text(encoding="utf-8"))["skills"]
    _write_card(name, skills, out / name)
    return skills


def _teacher_path(name: str, out: Path) -> Path:
    return out / name if (out / name).is_dir() else checkpoint_path(name)


def _cold_starts(students: Sequence[str], out: Path, work: Path, pool: Executor) -> dict[str, dict[str, float]]:
    """The skills of each student after the standard cold start."""
    from bench.smallworld.cold_start import cold_start_skills, write_teacher_traces

    writers: dict[MirroredNotation, Path] = {
        "ledger": _teacher_path("teacher", out),
        "mirror": _teacher_path("teacher_mirror", out),
    }
    folders = [work / f"traces-{notation}" for notation in writers]
    traces = dict(zip(writers, pool.map(write_teacher_traces, writers.values(), folders), strict=True))
    runs = [work / f"cold-start-{name}" for name in students]
    checkpoints = [work / name for name in students]
    return dict(zip(students, pool.map(cold_start_skills, checkpoints, repeat(traces), runs), strict=True))


def _publish(name: str, skills: Mapping[str, float], work: Path, out: Path) -> None:
    """Move a checkpoint from ``work`` to ``out`` with its card, unless it misses its gate."""
    if BLUEPRINTS[name].misses(skills):
        return
    shutil.rmtree(out / name, ignore_errors=True)
    (work / name).rename(out / name)
    _write_card(name, skills, out / name)


def _write_card(name: str, skills: Mapping[str, float], directory: Path) -> None:
    """Write ``recipe.json``: the blueprint, the recipe, the skills and the hash of the weights."""
    import torch

    blueprint = BLUEPRINTS[name]
    card: dict[str, Any] = {
        "blueprint": asdict(blueprint),
        "recipe": asdict(recipe_of(blueprint)),
        "skills": dict(skills),
        "torch": torch.__version__,
        # The same recipe gives the same bytes only on the same kind of processor, because torch's kernels differ.
        "processor": torch.backends.cpu.get_cpu_capability(),
        "sha256": sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
        "synthetic": True,
    }
    (directory / "recipe.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
