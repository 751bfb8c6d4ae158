"""The builtin engine against transformers' generate(), against itself in other batches, and against the softmax."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import chisquare

from vold.images import Pixels
from vold.models import EncodedPrompt, LanguageModel, Student, load_student
from vold.models.packing import TokenSequence, completion_hidden, completion_targets
from vold.objectives.fused import Head, token_stats
from vold.rollout import builtin
from vold.rollout.base import Completion, RolloutRequest, Sampling
from vold.rollout.builtin import BuiltinEngine
from vold.training.objective import Heads

STEPS = 80


def reference(model: LanguageModel, prompt: EncodedPrompt, steps: int) -> tuple[int, ...]:
    """Greedy tokens of transformers' own generate(), batch of one."""
    ids = torch.tensor([prompt.prompt_ids])
    images = {}
    if prompt.pixels is not None:
        assert isinstance(model, Student)
        images = {
            "pixel_values": prompt.pixels.values,
            "image_grid_thw": prompt.pixels.grid_thw,
            "mm_token_type_ids": (ids == model.image_token_id).int(),
        }
    out = model.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=steps,
        suppress_tokens=list(model.banned_ids),
        **images,
    )
    return tuple(out[0, len(prompt.prompt_ids) :].tolist())


def greedy(model: LanguageModel, steps: int = STEPS) -> Sampling:
    return Sampling(steps, 0.0, model.stop_ids, model.banned_ids)


def texts(model: LanguageModel) -> list[EncodedPrompt]:
    return [EncodedPrompt(model.encode_text(text)) for text in ("a", "[7+5-3*2]solve", "x" * 40, "[7+5-3*2]solve!")]


def images(model: Student, image: Image.Image) -> list[EncodedPrompt]:
    mark, read = {"type": "image"}, {"type": "text", "text": "read this"}
    small = image.resize((32, 16))
    return [
        model.encode([{"role": "user", "content": [mark, read]}], [image]),
        model.encode([{"role": "user", "content": [read, mark, mark, read]}], [small, image]),
        model.encode([{"role": "user", "content": [mark]}], [small]),
    ]


def run(model: LanguageModel, prompts: Sequence[EncodedPrompt], sampling: Sampling, **limits: int) -> list[Completion]:
    groups = BuiltinEngine(model, **limits).generate([RolloutRequest.of(prompt, [0]) for prompt in prompts], sampling)
    return [group[0] for group in groups]


@pytest.mark.parametrize("sections", [(0, 0, 16), (4, 6, 6)])
def test_greedy_equals_generate_for_text_and_images_alone_and_together(
    sections: tuple[int, int, int], build_student: Callable[..., Path], tmp_path: Path, image: Image.Image
) -> None:
    model = load_student(build_student(tmp_path / "student", seed=5, mrope_section=sections))
    prompts = texts(model) + images(model, image)
    assert len({len(prompt.prompt_ids) for prompt in prompts}) > 4, "rows of a batch must need padding"
    expected = [reference(model, prompt, STEPS) for prompt in prompts]
    assert len(set(expected)) == len(prompts)
    assert [completion.completion_ids for completion in run(model, prompts, greedy(model))] == expected
    alone = [run(model, [prompt], greedy(model))[0].completion_ids for prompt in prompts]
    assert alone == expected


def test_greedy_equals_generate_for_a_text_only_teacher(teacher: LanguageModel) -> None:
    prompts = texts(teacher)
    expected = [reference(teacher, prompt, STEPS) for prompt in prompts]
    assert [completion.completion_ids for completion in run(teacher, prompts, greedy(teacher))] == expected


def test_the_positions_of_an_image_matter(
    student: Student, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = images(student, image)[0]
    right = run(student, [prompt], greedy(student))[0]

    def counted(model: Student, ids: Sequence[int], pixels: Pixels | None = None) -> torch.Tensor:
        return torch.arange(len(ids)).expand(3, -1)

    monkeypatch.setattr(Student, "positions", counted)
    assert run(student, [prompt], greedy(student))[0].logprobs != pytest.approx(right.logprobs, abs=1e-3)


def test_samples_do_not_depend_on_their_batch(student: Student, image: Image.Image) -> None:
    prompts = texts(student) + images(student, image)
    sampling = Sampling(STEPS, 1.0, (*student.stop_ids, 40, 41, 42, 43), student.banned_ids)
    requests = [RolloutRequest.of(prompt, [100 + place, 7, 8]) for place, prompt in enumerate(prompts)]
    together = BuiltinEngine(student).generate(requests, sampling)
    assert len({len(c.completion_ids) for group in together for c in group}) > 5, "rows must end at different steps"
    alone = [BuiltinEngine(student).generate([request], sampling)[0] for request in requests]
    split = BuiltinEngine(student, max_batch=2).generate(requests[::-1], sampling)[::-1]
    single = [
        [BuiltinEngine(student).generate([RolloutRequest.of(prompt, [seed])], sampling)[0][0] for seed in request.seeds]
        for prompt, request in zip(prompts, requests, strict=True)
    ]
    for other in (alone, split, single):
        assert [[c.completion_ids for c in group] for group in other] == [
            [c.completion_ids for c in g] for g in together
        ]
        for mine, theirs in zip(other, together, strict=True):
            for one, two in zip(mine, theirs, strict=True):
                assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
                assert one.finish_reason == two.finish_reason


def test_sampling_frequencies_are_those_of_the_softmax(student: Student) -> None:
    prompt = EncodedPrompt(student.encode_text("frequencies"))
    sampling = Sampling(1, 0.8, (), student.banned_ids)
    draws = 20_000
    group = BuiltinEngine(student, max_batch=draws).generate([RolloutRequest.of(prompt, range(draws))], sampling)[0]
    counts = torch.bincount(torch.tensor([c.completion_ids[0] for c in group]), minlength=student.head.shape[0])
    with torch.no_grad():
        logits = student.model(input_ids=torch.tensor([prompt.prompt_ids])).logits[0, -1]
    logits[list(student.banned_ids)] = -torch.inf
    expected = (logits / 0.8).softmax(0) * draws
    assert counts[list(student.banned_ids)].sum() == 0
    common = expected >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]).double()
    assert common.sum() > 20
    assert chisquare(observed.numpy(), (wanted * observed.sum() / wanted.sum()).numpy()).pvalue > 1e-3


def test_logprobs_and_entropies_are_those_that_the_trainer_computes(student: Student) -> None:
    prompts = texts(student)
    sampling = Sampling(30, 0.9, student.stop_ids, student.banned_ids, entropies=True)
    completions = run(student, prompts, sampling)
    sequences = [TokenSequence(p.prompt_ids, c.completion_ids) for p, c in zip(prompts, completions, strict=True)]
    head: Head = Heads.of(student, None).student
    with torch.no_grad():
        hidden = completion_hidden(student, sequences)
        stats = token_stats(hidden, head, completion_targets(sequences, student.device), temperature=0.9)
    sampled = torch.tensor([value for completion in completions for value in completion.logprobs])
    torch.testing.assert_close(stats.logprobs, sampled, atol=1e-4, rtol=1e-4)
    measured = torch.tensor([value for completion in completions for value in completion.entropies or ()])
    torch.testing.assert_close(stats.entropy, measured, atol=1e-4, rtol=1e-4)
    silent = run(student, prompts, replace(sampling, entropies=False))
    assert silent == [replace(completion, entropies=None) for completion in completions]


def test_a_stop_token_ends_its_row_and_belongs_to_the_completion(student: Student) -> None:
    prompt = texts(student)[1]
    free = run(student, [prompt], Sampling(20, 0.0, (), student.banned_ids))[0]
    assert free.finish_reason == "length" and len(free.completion_ids) == 20
    stop = free.completion_ids[3]
    first = free.completion_ids.index(stop)
    stopped = run(student, [prompt], Sampling(20, 0.0, (stop,), student.banned_ids))[0]
    assert stopped.completion_ids == free.completion_ids[: first + 1]
    assert stopped.finish_reason == "stop"
    last = run(student, [prompt], Sampling(first + 1, 0.0, (stop,), student.banned_ids))[0]
    assert last.finish_reason == "stop", "a stop token on the last step is a stop"


def test_banned_ids_are_never_drawn(student: Student) -> None:
    prompt = texts(student)[0]
    favourite = run(student, [prompt], Sampling(1, 0.0))[0].completion_ids[0]
    other = run(student, [prompt], Sampling(1, 0.0, (), (favourite,)))[0]
    assert other.completion_ids[0] != favourite
    assert student.image_token_id in student.banned_ids


def test_each_prompt_is_prefilled_once_for_its_whole_group(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    trunk = student.trunk.forward

    def counted(*args: object, **kwargs: object) -> object:
        embeds = kwargs.get("inputs_embeds")
        if isinstance(embeds, torch.Tensor):
            rows.append(embeds.shape[0])
        return trunk(*args, **kwargs)

    monkeypatch.setattr(student.trunk, "forward", counted)
    requests = [RolloutRequest.of(prompt, range(16)) for prompt in texts(student)]
    BuiltinEngine(student).generate(requests, Sampling(2, 1.0))
    assert rows == [4]


def test_the_vision_tower_is_not_run_for_text(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("vision tower ran")

    monkeypatch.setattr(student.model.model.visual, "forward", refuse)
    assert run(student, texts(student), greedy(student, 2))


def test_a_prompt_too_wide_for_one_prefill_gets_its_own(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [c.completion_ids for c in run(student, texts(student), greedy(student, 5))]
    monkeypatch.setattr(builtin, "PREFILL_AREA", 1)
    assert [c.completion_ids for c in run(student, texts(student), greedy(student, 5))] == expected


def test_an_empty_prompt_and_missing_pixels_are_refused(student: Student, image: Image.Image) -> None:
    with pytest.raises(ValueError, match="without a prompt"):
        BuiltinEngine(student).generate([RolloutRequest((), (1,))], Sampling(1))
    prompt = images(student, image)[0]
    cut = EncodedPrompt(tuple(i for i in prompt.prompt_ids if i != student.image_token_id), prompt.pixels)
    with pytest.raises(ValueError, match="image placeholders"):
        run(student, [cut], greedy(student, 1))
