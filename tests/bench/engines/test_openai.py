"""The engine over servers: what is sent, what comes back, and what it costs."""

import base64
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.engines import Request
from bench.engines.client import ChatCompletion, Choice
from bench.engines.openai import MessagePreparer, _replies
from bench.errors import ConfigurationError
from tests.helpers.engine_requests import GREEDY, answers, stats, text
from tests.helpers.stub_server import stub_server


def test_thinking_is_turned_off_where_the_servers_template_has_the_switch_and_refused_where_not(ask_stub):
    switch = {"chat_template_kwargs": {"enable_thinking": False}}
    with stub_server("--keep", "--thinks") as (url, _):
        answers(ask_stub(url, thinking=False), ["how many?"])
        *_, asked = stats(url)["bodies"]
        assert {**asked, **switch} == asked
    with (
        stub_server() as (url, _),
        pytest.raises(ConfigurationError, match=r"cannot verify .* the prompt's length does not change\. Remove"),
    ):
        ask_stub(url, thinking=False)
    with (
        stub_server("--faults", '{"1": ["400"]}') as (url, _),
        pytest.raises(ConfigurationError, match=r"refuses .*Remove this setting"),
    ):
        ask_stub(url, thinking=False)


def test_a_turn_is_sent_in_the_order_of_its_parts(tmp_path: Path, ask_stub):
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20), "red").save(path)
    parts = [*text("look: "), {"type": "image", "path": str(path)}, *text(" what?")]
    with stub_server("--keep") as (url, _):
        engine = ask_stub(url)
        (answer,) = engine.answer([[Request(5, engine.preparer(parts), (11,))]], GREEDY)
        (body,) = stats(url)["bodies"]
    image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    content = [
        {"type": "text", "text": "look: "}, {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": " what?"},
    ]  # fmt: skip
    assert body == {
        "messages": [{"role": "user", "content": content}], "model": "stub", "max_tokens": 16, "temperature": 0.0,
        "top_p": 1, "n": 1, "seed": 11,
    }  # fmt: skip
    assert answer.index == 5 and answer.prompt_tokens == len("look:  what?")


def test_samples_are_one_request_and_keep_the_order_of_their_seeds(ask_stub):
    with stub_server("--keep") as (url, _):
        found = answers(ask_stub(url), ["a"], seeds=(5, 6, 7, 8), temperature=1.0)
        bodies = stats(url)["bodies"]
    assert [(body["n"], body["seed"]) for body in bodies] == [(4, 5)]
    assert [reply.text.split()[1] for reply in found[0].replies] == ["5", "6", "7", "8"]


def test_seeds_with_gaps_are_asked_in_runs_and_a_server_without_n_one_by_one(ask_stub):
    with stub_server("--keep", "--faults", json.dumps({"alone": ["fewer"] * 99})) as (url, _):
        engine = ask_stub(url)
        gaps = answers(engine, ["gaps"], seeds=(5, 6, 9), temperature=1.0)
        alone = answers(engine, ["alone"], seeds=(1, 2, 3), temperature=1.0)
        bodies = stats(url)["bodies"]
    assert [reply.text.split()[1] for reply in gaps[0].replies] == ["5", "6", "9"]
    assert [reply.text.split()[1] for reply in alone[0].replies] == ["1", "2", "3"]
    assert [(body["n"], body["seed"]) for body in bodies] == [(2, 5), (1, 9), (3, 1), (2, 2), (1, 3)]


@pytest.mark.parametrize(("fault", "errors"), [("400", 3), ("500", 0)])
def test_samples_that_came_stay_though_the_server_refuses_or_fails_the_rest(fault: str, errors: int, ask_stub):
    with stub_server("--faults", json.dumps({"a": ["fewer", *[fault] * 9]})) as (url, _):
        found = answers(ask_stub(url), ["a"], seeds=(5, 6, 7, 8), temperature=1.0)
    first, *rest = found[0].replies
    assert (first.text.split()[1], first.finish_reason) == ("5", "stop")
    assert [(reply.text, reply.finish_reason) for reply in rest] == [("HTTP 400: told to answer 400", "error")] * errors


def test_the_length_of_all_samples_is_shared_out_by_their_texts():
    told = ChatCompletion(
        (Choice("aaaa", None, "stop"), Choice("", None, "stop"), Choice("bb", None, "length")), "m", 3, 7
    )
    assert [reply.tokens for reply in _replies(told)] == [5, 0, 2]
    exact = ChatCompletion((Choice("aaaa", 3, "stop"), Choice("b", 4, "stop")), "m", 3, 7)
    assert [reply.tokens for reply in _replies(exact)] == [3, 4]
    assert [reply.tokens for reply in _replies(ChatCompletion((Choice("a", None, "stop"),), "m", None, None))] == [0]


def test_asks_are_drawn_as_there_is_room_and_abandoned_ones_cancelled(ask_stub):
    drawn = 0

    def groups(engine) -> Iterator[Sequence[Request]]:
        nonlocal drawn
        for place in range(1000):
            drawn += 1
            yield [Request(place, engine.preparer(text("slow" if place else "quick")), (1,))]

    with stub_server("--faults", json.dumps({"slow": ["slow:2"] * 1000})) as (url, _):
        engine = ask_stub(url, concurrency=4, max_concurrency=4)
        found = engine.answer(groups(engine), GREEDY)
        next(found)
        assert drawn <= 4 + 8 + 1
        found.close()
        assert len(answers(engine, ["b"])) == 1  # usable again, and not after those that waited
        assert stats(url)["requests"] <= 1 + 4 + 1


def test_an_error_in_what_is_drawn_comes_through(ask_stub):
    def groups() -> Iterator[Sequence[Request]]:
        raise RuntimeError("no more")
        yield

    with stub_server() as (url, _), pytest.raises(RuntimeError, match="no more"):
        list(ask_stub(url).answer(groups(), GREEDY))


def test_a_request_costs_little_processor_time(ask_stub):
    with stub_server() as (url, _):
        engine = ask_stub(url)
        answers(engine, ["warm"] * 200)
        best = float("inf")
        for _ in range(3):  # the machine may be busy with other things
            before = resource.getrusage(resource.RUSAGE_SELF)
            assert len(answers(engine, ["a question of some length " * 20] * 1000)) == 1000
            after = resource.getrusage(resource.RUSAGE_SELF)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best / 1000 < 0.75e-3  # 0.3 ms on an idle core


def test_the_path_to_a_server_needs_no_torch():
    code = (
        "import sys, bench.engines.openai, bench.scoring.judge; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def decoded(url: str) -> tuple[str, Image.Image, bytes]:
    head, _, body = url.partition(",")
    content = base64.b64decode(body)
    return head, Image.open(io.BytesIO(content)), content


def sent(path: Path, limits: tuple[int, int] | None = None, factor: int = 28) -> tuple[str, Image.Image, bytes]:
    (message,) = json.loads(MessagePreparer(limits, factor)([{"type": "image", "path": str(path)}]).messages)
    return decoded(message["content"][0]["image_url"]["url"])


@pytest.mark.parametrize(("kind", "mime"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")])
def test_a_file_goes_out_as_it_is_unless_it_must_be_resized(kind: str, mime: str, tmp_path: Path):
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    for limits in (None, (140 * 84, 140 * 84 * 2)):
        head, image, content = sent(path, limits)
        resized = limits is not None
        assert head == ("data:image/png;base64" if resized else f"data:{mime};base64")
        assert image.size == ((140, 112) if resized else (150, 100))
        assert resized or content == path.read_bytes()


@pytest.mark.slow  # imports transformers
def test_a_resized_image_has_the_pixels_of_the_models_own_processor(tmp_path: Path):
    from transformers import Qwen2VLImageProcessorPil

    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (333, 517, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    limits = (28 * 28 * 4, 28 * 28 * 60)
    processor = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, temporal_patch_size=2)
    size = {"shortest_edge": limits[0], "longest_edge": limits[1]}
    ours = processor(images=[sent(path, limits)[1]], return_tensors="pt", size=size)
    theirs = processor(images=[Image.open(path)], return_tensors="pt", size=size)
    assert ours["image_grid_thw"].tolist() == theirs["image_grid_thw"].tolist() == [[1, 12, 18]]
    assert (ours["pixel_values"] - theirs["pixel_values"]).abs().max() == 0


@pytest.mark.slow
def test_sizes_are_those_of_the_models_own_rule():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    from bench.engines.images import fitting_size

    random = np.random.default_rng(1)
    for _ in range(2000):
        width, height = (int(side) for side in np.exp(random.uniform(np.log(10), np.log(4000), 2)))
        factor = int(random.choice([16, 28, 32]))
        least = int(random.integers(1, 200)) * factor**2
        limits = (least, least * int(random.integers(2, 50)))
        if max(width, height) <= 200 * min(width, height):
            expected = smart_resize(height, width, factor, *limits)
            assert fitting_size(width, height, factor, limits) == expected[::-1]
    with pytest.raises(ValueError, match="200 times"):
        fitting_size(2010, 10, 28, (784, 78400))


@pytest.mark.parametrize("form", ["transparent", "palette", "bmp", "turned"])
def test_what_servers_would_change_is_sent_as_the_pixels_that_the_builtin_engine_sees(form: str, tmp_path: Path):
    from vold.images import open_image

    path = tmp_path / ("a.bmp" if form == "bmp" else "a.jpg" if form == "turned" else "a.png")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    if form == "transparent":
        Image.fromarray(pixels, "RGBA").save(path)
    elif form == "palette":
        Image.fromarray(pixels[..., :3]).quantize(16).save(path, transparency=3)
    elif form == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels[..., :3]).save(path, exif=exif)
    else:
        Image.fromarray(pixels[..., :3]).save(path)
    head, image, _ = sent(path)
    assert head == "data:image/png;base64" and image.mode == "RGB" and not image.getexif()
    assert np.array_equal(np.asarray(image), np.asarray(open_image(path)))


def test_an_image_that_cannot_be_sent_is_named(tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    for name, message in (("text.png", "unreadable image"), ("absent.png", "no such image")):
        with pytest.raises(ValueError, match=message) as told:
            sent(tmp_path / name)
        assert name in str(told.value)
    path = tmp_path / "huge.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(ValueError, match="the limit is"):
        sent(path)
    Image.new("RGB", (900, 4)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin\.png: 900 x 4"):
        sent(tmp_path / "thin.png", (784, 78400))
