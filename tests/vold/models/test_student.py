"""Chats with images become ids and pixels."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vold import images as images
from vold.models import Student, load_student

IMAGE = {"type": "image"}


def chat(*parts: dict[str, str]) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(parts)}]


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_text_is_rendered_with_the_chat_template(student: Student) -> None:
    ids = student.encode("[1+2]solve").prompt_ids
    assert student.tokenizer.decode(list(ids)) == "<|im_start|>user\n[1+2]solve<|im_end|>\n<|im_start|>assistant\n"


def test_any_text_can_be_encoded_and_decoded(student: Student) -> None:
    strange = "∑ é 漢字 \x00 \u202e 🙂"
    ids = student.tokenizer(strange, add_special_tokens=False)["input_ids"]
    assert student.decode(ids) == strange


def test_each_placeholder_is_expanded_to_as_many_tokens_as_the_model_sees(student: Student, image: Image.Image) -> None:
    small = image.resize((32, 16))
    prompt = student.encode(chat(IMAGE, text("and"), IMAGE), [small, image])
    assert prompt.pixels is not None
    tokens = [int(t * h * w) // 4 for t, h, w in prompt.pixels.grid_thw.tolist()]
    assert tokens[0] == 2 and tokens[1] > tokens[0]
    kinds = [index == student.image_token_id for index in prompt.prompt_ids]
    runs = [len(run) for run in "".join("x" if kind else " " for kind in kinds).split()]
    assert runs == tokens
    with torch.no_grad():
        assert len(student.visual_embeddings([prompt.pixels])) == sum(tokens)


def test_a_frozen_tower_runs_once_on_the_images_of_a_prompt(
    student_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, looks = load_student(student_path), list[int]()
    tower = model.model.model.visual.forward

    def counted(values: torch.Tensor, *args: object, **kwargs: object) -> object:
        looks.append(len(values))
        return tower(values, *args, **kwargs)

    monkeypatch.setattr(model.model.model.visual, "forward", counted)
    first, second = (
        model.encode(chat(IMAGE, text(name)), [image.resize(size)]).pixels
        for name, size in (("a", (32, 16)), ("b", (48, 32)))
    )
    assert first is not None and second is not None
    trained = model.visual_embeddings([first, second])
    assert trained.requires_grad and trained.equal(model.visual_embeddings([first, second]))
    assert looks == [len(first.values) + len(second.values)] * 2, "what is trained is computed anew"
    looks.clear()
    model.model.requires_grad_(False)
    with torch.inference_mode():
        alone = model.visual_embeddings([second])
    together = model.visual_embeddings([first, second])
    assert looks == [len(second.values), len(first.values)]
    torch.testing.assert_close(together, trained.detach())
    assert together[-len(alone) :].equal(alone) and not together.is_inference()
    assert len(model._embeddings) == 2
    del first, second
    assert len(model._embeddings) == 0


def test_positions_of_a_prompt_with_images_are_the_models_own_and_computed_once(
    student_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = load_student(student_path), list[int]()
    index = model.model.model.get_rope_index

    def counted(ids: torch.Tensor, **kwargs: object) -> object:
        asked.append(ids.shape[1])
        return index(ids, **kwargs)

    prompt = model.encode(chat(IMAGE, text("and"), IMAGE), [image, image.resize((32, 16))])
    assert prompt.pixels is not None
    ids = torch.tensor([prompt.prompt_ids])
    kinds = (ids == model.image_token_id).int()
    expected = index(ids, mm_token_type_ids=kinds, image_grid_thw=prompt.pixels.grid_thw)[0][:, 0]
    monkeypatch.setattr(model.model.model, "get_rope_index", counted)
    longer = (*prompt.prompt_ids, *model.encode_text("more"))
    for _ in range(2):
        assert model.positions(prompt.prompt_ids, prompt.pixels).equal(expected)
        assert model.positions(longer, prompt.pixels)[:, : len(prompt.prompt_ids)].equal(expected)
    assert asked == [len(prompt.prompt_ids), len(longer)]


def test_pixels_are_those_of_the_image_processor(student: Student, image: Image.Image) -> None:
    pixels = student.encode(chat(IMAGE), [image]).pixels
    assert pixels is not None
    expected = student.image_processor(images=[image], return_tensors="pt")
    assert torch.equal(pixels.values, expected["pixel_values"])
    assert torch.equal(pixels.grid_thw, expected["image_grid_thw"])


@pytest.mark.parametrize("limits", [(256, 1024), (4096, 16384), (16384, 65536)])
def test_pixel_limits_take_effect(limits: tuple[int, int], student_path: Path, image: Image.Image) -> None:
    model = load_student(student_path, pixel_limits=limits)
    pixels = model.encode(chat(IMAGE), [image]).pixels
    assert pixels is not None
    area = int(pixels.grid_thw.prod()) * 8 * 8
    assert limits[0] <= area <= limits[1]


@pytest.mark.parametrize(("parts", "count"), [((text("none"),), 1), ((IMAGE, IMAGE), 1), ((IMAGE,), 0)])
def test_images_and_placeholders_must_match(
    student: Student, image: Image.Image, parts: tuple[dict[str, str], ...], count: int
) -> None:
    with pytest.raises(ValueError, match="image placeholders for"):
        student.encode(chat(*parts), [image] * count)


def test_a_placeholder_in_the_text_of_a_problem_is_refused(student: Student, image: Image.Image) -> None:
    with pytest.raises(ValueError, match="2 image placeholders for 1 images"):
        student.encode(chat(IMAGE, text("look: <|image_pad|>")), [image])


def test_an_unreadable_image_is_named(student: Student, tmp_path: Path, image: Image.Image) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png: unreadable image"):
        student.encode(chat(IMAGE), [broken])
    image.save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.png: unreadable image"):
        student.encode(chat(IMAGE), [tmp_path / "cut.png"])
    with pytest.raises(ValueError, match=r"gone\.png: no such image"):
        student.encode(chat(IMAGE), [tmp_path / "gone.png"])


def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(
    student: Student, tmp_path: Path, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    image.save(tmp_path / "large.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 70 - 1)
    with pytest.raises(ValueError, match=r"large\.png: an image of 70 x 40; the limit is 2799 pixels"):
        student.encode(chat(IMAGE), [tmp_path / "large.png"])


def test_an_image_with_an_absurd_shape_is_named(student: Student, tmp_path: Path) -> None:
    Image.new("RGB", (1000, 2)).save(tmp_path / "line.png")
    with pytest.raises(ValueError, match=r"line\.png: 1000 x 2 pixels cannot be resized"):
        student.encode(chat(IMAGE), [tmp_path / "line.png"])
