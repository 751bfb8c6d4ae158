"""Pixel limits and the switch of thinking, proven on what the model is fed."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.engines.encoding import EncodingPreparer, check_grid
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.run import evaluate
from bench.prompts import PromptPart
from vold.execution import Execution
from vold.models import ModelError

FACTOR = 28
"""Pixels of a merged patch of the released models: 14 times 2."""

LIMITS = [(3_136, 50_176), (50_176, 200_704), (200_704, 1_003_520)]
SWITCH = (
    "{%- if enable_thinking is defined and enable_thinking is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}"
)


def expected_grid(width: int, height: int, limits: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in merged patches by the rule of Qwen's smart_resize, in whole numbers alone.

    Each side to the nearest multiple; if that is too large, the largest multiples not above side * sqrt(most / area),
    if too small, the least not below side * sqrt(least / area): floor(sqrt(x)) is isqrt(x), exactly.
    """
    least, most = limits
    rows, columns = (_nearest(side) for side in (height, width))
    if rows * columns * FACTOR**2 > most:
        return tuple(max(1, math.isqrt(a * most // (b * FACTOR**2))) for a, b in ((height, width), (width, height)))  # type: ignore[return-value]
    if rows * columns * FACTOR**2 < least:
        return tuple(_least_root(a * least, b * FACTOR**2) for a, b in ((height, width), (width, height)))  # type: ignore[return-value]
    return rows, columns


def _nearest(side: int) -> int:
    """side / 28, a tie to the even number."""
    whole, rest = divmod(side, FACTOR)
    return whole + (rest > FACTOR // 2 or (rest == FACTOR // 2 and whole % 2 == 1))


def _least_root(above: int, below: int) -> int:
    """The least n with n * n >= above / below."""
    root = math.isqrt(above // below)
    return root if root * root * below >= above else root + 1


def _grid(prepared: Any) -> tuple[int, int]:
    ((_, height, width),) = prepared.pixels.grid_thw.tolist()
    return height // 2, width // 2


def _turn(*images: Path) -> list[PromptPart]:
    return [*({"type": "image", "path": str(path)} for path in images), {"type": "text", "text": "How many?"}]  # type: ignore[list-item]


@pytest.mark.slow
@pytest.mark.real
def test_limits_change_the_grids_of_real_images_as_qwens_rule_says(random_student: Path, benchmark_data: Path) -> None:
    folder = benchmark_data / "mathvision" / "images"
    images = [folder / "2845.jpg", folder / "2935.jpg", folder / "621.jpg", *sorted(folder.glob("*.jpg"))[:6]]
    images.append(benchmark_data / "logicvista" / "images" / "v1_220.png")
    seen: dict[Path, set[tuple[int, int]]] = {image: set() for image in images}
    sizes: dict[Path, tuple[int, int]] = {}
    for limits in LIMITS:
        preparer = EncodingPreparer(random_student, limits)
        for image in images:
            with Image.open(image) as opened:
                sizes[image] = opened.size
            prepared = preparer(_turn(image))
            grid = _grid(prepared)
            assert grid == expected_grid(*sizes[image], limits), (image, limits)
            assert preparer.sizes(prepared)[1] == math.prod(grid)
            seen[image].add(grid)
    assert sizes[images[0]] == (54, 40) and sizes[images[1]] == (2520, 8526)
    assert all(len(grids) == len(LIMITS) for image, grids in seen.items() if image in images[:2])


@pytest.mark.parametrize("size", [(1, 150), (28, 28), (42, 70), (5600, 56), (13, 14), (999, 1001)])
@pytest.mark.parametrize("limits", LIMITS)
def test_hard_sizes_follow_the_rule_too(
    size: tuple[int, int], limits: tuple[int, int], random_student: Path, tmp_path: Path
) -> None:
    Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "p.png")
    assert _grid(EncodingPreparer(random_student, limits)(_turn(tmp_path / "p.png"))) == expected_grid(*size, limits)


@pytest.mark.parametrize(
    ("grid", "allowed"),
    [((4, 4), True), ((16, 16), True), ((2, 4), False), ((16, 18), False), ((2, 200), True)],
)
def test_a_grid_outside_of_the_limits_is_refused_unless_it_cannot_be_made_less(
    grid: tuple[int, int], allowed: bool
) -> None:
    limits = (4 * 4 * 14**2, 16 * 16 * 14**2)
    if allowed:
        assert check_grid(Path("p.png"), grid, 14, 2, limits) is None
    else:
        with pytest.raises(ConfigurationError, match=r"p\.png: resized to .* pixels, outside of 3136 to 50176"):
            check_grid(Path("p.png"), grid, 14, 2, limits)


def _data(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (280, 140), (200, 30, 30)).save(root / "images/1.png")
    row = {"id": "1", "question": "How many?\n<image1>", "options": [], "answer": "3", "image": "images/1.png",
           "level": 1, "subject": "counting"}  # fmt: skip
    (root / "test.jsonl").write_text(json.dumps(row) + "\n")
    return root


def _evaluate(model: Path, root: Path, **settings: Any) -> dict[str, Any]:
    config = EvalConfig(engine="builtin", max_tokens=2, **settings)
    execution = Execution(device="cpu", threads=1)
    evaluate(config, model=model, data={"mathvision": root / "data"}, run=root / "run", seed=1, execution=execution)
    return json.loads((root / "run/out/summary.json").read_text())["benchmarks"]["mathvision"]


def test_an_engine_that_does_not_follow_the_limits_ends_the_evaluation(
    random_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vold.models.encoder import Encoder

    _data(tmp_path / "data")
    monkeypatch.setattr(Encoder, "_limits", lambda self: {})
    with pytest.raises(ConfigurationError, match="does not follow min_pixels and max_pixels"):
        _evaluate(random_student, tmp_path, min_pixels=784, max_pixels=1_568)
    assert not (tmp_path / "run/out").exists()


def _with_switch(model: Path, root: Path) -> Path:
    copy = root / "thinker"
    shutil.copytree(model, copy)
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + SWITCH)
    return copy


def test_thinking_is_turned_off_by_the_templates_own_switch(random_student: Path, tmp_path: Path) -> None:
    _data(tmp_path / "data")
    thinker = _with_switch(random_student, tmp_path)
    prompts = []
    for think in ("default", "off"):
        prompts.append(_evaluate(thinker, tmp_path, think=think)["prompt"])
        shutil.rmtree(tmp_path / "run")
    assert prompts[1]["rendered"] == prompts[0]["rendered"] + "<think>\n\n</think>\n\n"
    assert prompts[1]["tokens"] > prompts[0]["tokens"]
    assert prompts[1]["token_ids_sha256"] != prompts[0]["token_ids_sha256"]


def test_thinking_cannot_be_turned_off_where_the_template_has_no_switch(random_student: Path, tmp_path: Path) -> None:
    _data(tmp_path / "data")
    with pytest.raises(ModelError, match=r"has no switch enable_thinking.*leave that setting out"):
        _evaluate(random_student, tmp_path, think="off")


def test_a_checkpoint_without_its_weights_can_be_counted_with(random_student: Path, tmp_path: Path) -> None:
    """As a dry run fetches a model of the hub."""
    shutil.copytree(random_student, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    turn: list[PromptPart] = [{"type": "text", "text": "How many dots?"}]
    counted = EncodingPreparer(tmp_path / "bare").read_prompt(turn)
    assert counted is not None and counted == EncodingPreparer(random_student).read_prompt(turn)
