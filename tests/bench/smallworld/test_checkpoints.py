"""The bundled checkpoints agree with their cards and have the skills that the experiments need."""

import hashlib
import json
import math
import re
from itertools import islice

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from bench.smallworld import CHECKPOINTS, checkpoint_path
from bench.smallworld.build import BLUEPRINTS
from bench.smallworld.notation import mirrored
from bench.smallworld.problems import WorldProblem, stream
from bench.smallworld.records import question
from bench.smallworld.render import render_problem
from vold.models import LanguageModel, Student, load_student, load_teacher
from vold.rollout.base import RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.seeding import generator

# How the traces of each teacher begin.
TEACHERS = {
    "teacher": "[0-9][-+*0-9]+:",
    "teacher_mirror": "[0-9][-+*0-9]+#",
    "teacher_list": "#[0-9][-+*;0-9]+;[0-9][-+*][0-9]=",
    "teacher_tape": "#[0-9];[-+*]",
}


def held_out(count: int, **kind: str) -> list[WorldProblem]:
    return list(islice(stream(77, "checkpoint tests", "tune", **kind), count))  # type: ignore[arg-type]


def responses(model: LanguageModel, requests: list[RolloutRequest], tokens: int = 96) -> list[str]:
    sampling = Sampling(tokens, temperature=0, stop_ids=model.stop_ids, banned_ids=model.banned_ids)
    return [model.decode(group[0].completion_ids) for group in BuiltinEngine(model).generate(requests, sampling)]


def image_request(student: Student, problem: WorldProblem, verb: str) -> RolloutRequest:
    image = Image.fromarray(render_problem(problem, generator(3, problem.key)))
    content = [{"type": "image"}, {"type": "text", "text": f"{verb}{problem.tail}"}]
    return RolloutRequest.of(student.encode([{"role": "user", "content": content}], [image]), (0,))


def test_all_checkpoints_together_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for name in CHECKPOINTS for path in checkpoint_path(name).iterdir()]
    assert sum(sizes) <= 25e6


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_card_names_recipe_seed_and_the_hash_of_the_weights(name: str) -> None:
    root = checkpoint_path(name)
    card = json.loads((root / "recipe.json").read_text())
    assert card["sha256"] == hashlib.sha256((root / "model.safetensors").read_bytes()).hexdigest()
    assert card["synthetic"] is True
    assert card["blueprint"]["seed"] == BLUEPRINTS[name].seed
    assert BLUEPRINTS[name].misses(card["skills"]) == {}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_model_has_about_one_million_parameters_as_every_report_says(name: str) -> None:
    with safe_open(checkpoint_path(name) / "model.safetensors", "pt") as weights:
        sizes = [math.prod(weights.get_slice(key).get_shape()) for key in weights.keys()]  # noqa: SIM118  not a dict
    assert 0.95e6 < sum(sizes) < 1.1e6


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_solves_held_out_problems_step_by_step(name: str) -> None:
    teacher = load_teacher(checkpoint_path(name))
    problems = held_out(48)
    requests = [RolloutRequest(teacher.encode_text(problem.text()), (0,)) for problem in problems]
    texts = responses(teacher, requests)
    right = sum(text.endswith(f"\\boxed{{{problem.answer}}}") for text, problem in zip(texts, problems, strict=True))
    assert right >= 44
    assert all(re.match(TEACHERS[name], text) for text in texts)


@pytest.mark.parametrize("name", ["student_a", "student_b", "student_c"])
def test_a_base_student_reads_images_but_does_not_solve_problems_of_several_steps(name: str) -> None:
    student = load_student(checkpoint_path(name))
    problems = held_out(40, form="free")
    transcripts = responses(student, [image_request(student, problem, "read") for problem in problems])
    assert sum(text == problem.symbols for text, problem in zip(transcripts, problems, strict=True)) >= 36
    long = [problem for problem in held_out(120, form="free") if len(problem.operations) >= 3]
    solved = responses(student, [image_request(student, problem, "solve") for problem in long])
    right = sum(text.endswith(f"\\boxed{{{problem.answer}}}") for text, problem in zip(solved, long, strict=True))
    assert right / len(long) < 0.3
    assert question(long[0]).startswith("solve")


def test_any_real_text_encodes_and_decodes_back() -> None:
    teacher = load_teacher(checkpoint_path("teacher"))
    text = "Wie groß ist α?  ∠ABC = 45°\n\t数学 🙂"
    ids = teacher.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert teacher.tokenizer.decode(ids) == text


def test_the_mirrored_teacher_says_exactly_what_its_original_says_in_the_other_marks() -> None:
    teacher, mirror = (load_teacher(checkpoint_path(name)) for name in ("teacher", "teacher_mirror"))
    text = "[7+5-3*9]solve"
    ids = teacher.encode_text(text)
    assert ids == mirror.encode_text(text)
    completion = "7+5-3*9:7+5=2,2-3=9,9*9=1.\\boxed{1}"
    both = []
    for model, written in ((teacher, completion), (mirror, mirrored(completion))):
        rest = model.tokenizer(written, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model.model(torch.tensor([[*ids, *rest]])).logits[0]
        both.append(logits.log_softmax(-1)[range(len(ids) - 1, len(ids) + len(rest) - 1), rest])
    torch.testing.assert_close(both[0], both[1], atol=1e-5, rtol=0)
