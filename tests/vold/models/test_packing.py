"""Packed micro-batches against transformers' own forward pass, padded and one row at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from vold.models import EncodedPrompt, LanguageModel, Student, load_student, load_teacher
from vold.models.packing import (
    TokenSequence,
    completion_hidden,
    completion_targets,
    micro_batches,
    pack,
    token_index,
)

LENGTHS = ((3, 4), (5, 1), (2, 9), (4, 0), (6, 2))
SEQUENCES = [TokenSequence(tuple(range(p)), tuple(range(50, 50 + c))) for p, c in LENGTHS]


def group(prompt: EncodedPrompt, *lengths: int) -> list[TokenSequence]:
    """Completions of one prompt with these lengths, all different."""
    return [
        TokenSequence(prompt.prompt_ids, tuple((7 * index + 3 * step) % 250 for step in range(length)), prompt.pixels)
        for index, length in enumerate(lengths)
    ]


def chat(model: Student, images: list[Image.Image], text: str) -> EncodedPrompt:
    parts = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    return model.encode([{"role": "user", "content": parts}], images)


def text_rows(model: LanguageModel) -> list[TokenSequence]:
    first, second, third = (EncodedPrompt(model.encode_text(text)) for text in ("a", "[7+5-3*2]solve", "x" * 40))
    return group(first, 5, 1, 30, 6) + group(second, 9) + group(third, 1, 2)


def image_rows(model: Student, image: Image.Image) -> list[TokenSequence]:
    small = image.resize((32, 16))
    one, two = chat(model, [image], "read"), chat(model, [small, image], "read these two")
    return group(one, 4, 11, 1) + group(two, 7)


def mixed_rows(model: Student, image: Image.Image) -> list[TokenSequence]:
    """Rows in which those of one prompt are not next to each other."""
    rows = text_rows(model) + image_rows(model, image)
    return rows[::2] + rows[1::2]


def reference(model: LanguageModel, rows: list[TokenSequence]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Hidden states that predict the completions, their NLL and its gradients, from a newly loaded model.

    It uses eager attention, right padding with a mask, and the positions of transformers.
    """
    loader = AutoModelForImageTextToText if isinstance(model, Student) else AutoModelForCausalLM
    plain = loader.from_pretrained(model.path, attn_implementation="eager").eval()
    whole = [torch.tensor(row.prompt_ids + row.completion_ids) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in whole], batch_first=True)
    arguments: dict[str, Tensor] = {}
    if isinstance(model, Student) and (pixels := [row.pixels for row in rows if row.pixels is not None]):
        arguments = {
            "pixel_values": torch.cat([each.values for each in pixels]),
            "image_grid_thw": torch.cat([each.grid_thw for each in pixels]),
            "mm_token_type_ids": (ids == model.image_token_id).int(),
        }
    out = plain(input_ids=ids, attention_mask=mask, output_hidden_states=True, **arguments)
    spans = [(len(row.prompt_ids), len(row)) for row in rows]
    hidden = torch.cat([states[a - 1 : b - 1] for states, (a, b) in zip(out.hidden_states[-1], spans, strict=True)])
    logprobs = torch.cat([scores[a - 1 : b - 1] for scores, (a, b) in zip(out.logits, spans, strict=True)])
    targets = torch.cat([row[a:] for row, (a, _) in zip(whole, spans, strict=True)])
    loss = torch.nn.functional.cross_entropy(logprobs, targets)
    loss.backward()
    return hidden.detach(), loss.detach(), gradients(plain)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def packed(model: LanguageModel, rows: list[TokenSequence]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    hidden = completion_hidden(model, rows)
    logits = torch.nn.functional.linear(hidden, model.head)
    loss = torch.nn.functional.cross_entropy(logits, completion_targets(rows, model.device))
    model.model.zero_grad()
    loss.backward()
    return hidden.detach(), loss.detach(), gradients(model.model)


@pytest.fixture(scope="module", params=[(0, 0, 16), (4, 6, 6)], ids=["sections_0_0_16", "sections_4_6_6"])
def reader(
    request: pytest.FixtureRequest, build_student: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Student:
    path = tmp_path_factory.mktemp("reader") / "student"
    return load_student(build_student(path, seed=3, mrope_section=request.param))


def assert_equal(model: LanguageModel, rows: list[TokenSequence]) -> None:
    hidden, loss, grads = packed(model, rows)
    expected_hidden, expected_loss, expected = reference(model, rows)
    torch.testing.assert_close(hidden, expected_hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-5)
    assert grads.keys() == expected.keys()
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("kind", [text_rows, image_rows, mixed_rows])
def test_losses_and_gradients_equal_those_of_transformers_on_padded_rows(
    reader: Student, image: Image.Image, kind: Callable[..., list[TokenSequence]]
) -> None:
    rows = kind(reader) if kind is text_rows else kind(reader, image)
    assert_equal(reader, rows)


def test_losses_and_gradients_of_a_text_only_model_are_equal_too(teacher_path: Path) -> None:
    model = load_teacher(teacher_path)
    model.model.requires_grad_(True)
    assert_equal(model, text_rows(model))


def test_half_precision_gives_float32_gradients_close_to_the_full_ones(reader: Student, image: Image.Image) -> None:
    rows = mixed_rows(reader, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, loss, grads = packed(reader, rows)
    _, full_loss, full = packed(reader, rows)
    assert float(loss) == pytest.approx(float(full_loss), rel=1e-2)
    assert {gradient.dtype for gradient in grads.values()} == {torch.float32}
    mine, theirs = (torch.cat([g.flatten() for g in each.values()]) for each in (grads, full))
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.99


def test_single_sequences_give_the_same_as_a_batch(reader: Student, image: Image.Image) -> None:
    rows = mixed_rows(reader, image)
    with torch.no_grad():
        together = completion_hidden(reader, rows)
        alone = torch.cat([completion_hidden(reader, [row]) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_completion_does_not_see_its_neighbours(reader: Student) -> None:
    rows = text_rows(reader)
    others = [rows[0], *(replace(row, completion_ids=tuple(9 for _ in row.completion_ids)) for row in rows[1:])]
    with torch.no_grad():
        first, second = completion_hidden(reader, rows), completion_hidden(reader, others)
    length = len(rows[0].completion_ids)
    torch.testing.assert_close(first[:length], second[:length], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(first[length + 2 :], second[length + 2 :], atol=1e-2)


def test_nothing_is_padded_and_a_shared_prompt_and_its_images_are_read_once(
    student: Student, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = chat(student, [image], "read")
    rows = group(prompt, 4, 11, 1)
    read = pack(student, rows)
    assert len(read.ids) == len(prompt.prompt_ids) + 3 + 10
    patches: list[int] = []
    tower = student.model.model.visual.forward

    def counted(values: Tensor, *args: object, **kwargs: object) -> object:
        patches.append(len(values))
        return tower(values, *args, **kwargs)

    monkeypatch.setattr(student.model.model.visual, "forward", counted)
    with torch.no_grad():
        completion_hidden(student, rows)
    assert prompt.pixels is not None and patches == [len(prompt.pixels.values)]


def test_a_text_only_model_refuses_images(teacher: LanguageModel, student: Student, image: Image.Image) -> None:
    with pytest.raises(ValueError, match="reads only text"):
        completion_hidden(teacher, image_rows(student, image))


@pytest.mark.parametrize("budget", [1, 12, 20, 1000])
def test_micro_batches_contain_every_sequence_with_a_completion_once_within_the_budget(
    budget: int, student: Student
) -> None:
    rows = [*SEQUENCES, TokenSequence(SEQUENCES[0].prompt_ids, (60, 61, 62)), SEQUENCES[4]]
    batches = list(micro_batches(rows, budget))
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 4, 5, 6]
    for batch in batches:
        assert len(pack(student, [rows[index] for index in batch]).ids) <= budget or len(batch) == 1
    if budget == 1000:
        assert len(batches) == 1


def test_micro_batches_keep_the_completions_of_a_prompt_together() -> None:
    rows = [TokenSequence((prompt, 1, 2), (5,) * length) for length in (9, 4, 7, 2) for prompt in (0, 3)]
    for batch in micro_batches(rows, budget=25):
        assert len({rows[index].prompt_ids for index in batch}) == 1
        assert len(batch) == 4


def test_token_index_finds_the_rows_tokens() -> None:
    targets = completion_targets([SEQUENCES[0], SEQUENCES[2]], torch.device("cpu"))
    assert targets.tolist() == [*range(50, 54), *range(50, 59)]
    assert token_index([4, 1, 9], [2, 0]).tolist() == [*range(5, 14), *range(4)]
