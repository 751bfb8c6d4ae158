"""The loaders of the real benchmarks read the data sets of the small world."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.benchmarks.registry import load_problems
from bench.prompts import render
from bench.smallworld import records
from bench.smallworld.problems import stream
from bench.smallworld.render import CELL, render_problem
from vold.seeding import generator


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_writing_the_data_sets_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    records.write_datasets("test", 6, tmp_path / "a")
    records.write_datasets("test", 6, tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_training_split_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="test, tune, check"):
        records.write_datasets("train", 4, tmp_path)


@pytest.mark.parametrize("dataset", records.DATASETS, ids=lambda dataset: dataset.benchmark)
def test_the_real_loader_reads_every_record_with_its_answer_and_image(
    dataset: records.WorldDataset, tmp_path: Path
) -> None:
    root = records.write_datasets("test", 12, tmp_path)[dataset.benchmark]
    problems = load_problems(dataset.benchmark, root)
    expected = stream(records.DATA_SEED, dataset.name, "test", dataset.family, dataset.form)
    assert len(problems) == 12 == len({problem.cluster for problem in problems})
    for problem, source in zip(problems, expected, strict=False):
        assert problem.answer == (source.symbols if dataset.benchmark == "transcription" else source.answer)
        assert not problem.unscorable
        with Image.open(problem.images[0]) as image:
            assert image.size == (CELL * len(source.symbols), CELL)


def test_a_model_is_asked_to_read_an_image_as_in_its_pretraining(tmp_path: Path) -> None:
    problems = load_problems("transcription", records.write_datasets("test", 24, tmp_path)["transcription"])
    sources = list(itertools.islice(stream(records.DATA_SEED, "smallworld-read", "test"), 24))
    assert {(source.family, source.form) for source in sources} == {
        (family, form) for family in ("chain", "bars") for form in ("free", "choice")
    }
    for problem, source in zip(problems, sources, strict=True):
        image, text = render(problem)
        assert image == {"type": "image", "path": str(problem.images[0])}
        assert text["text"] == f"read{source.tail}", "the prompt of the skill `read` after its image"
        assert (problem.kind, problem.answer) == ("text", source.symbols)


def test_an_image_shows_a_taller_bar_for_a_larger_digit() -> None:
    problem = next(stream(1, "bars", "train", "bars", "free"))
    image = render_problem(problem, generator(0, "picture")).astype(float).mean(-1)
    paper = np.median(image[0])
    heights = [
        int((np.abs(image[:, index * CELL : (index + 1) * CELL] - paper) > 60).any(axis=1).sum())
        for index in range(len(problem.digits))
    ]
    order = np.argsort(problem.digits, kind="stable")
    assert all(heights[a] <= heights[b] for a, b in itertools.pairwise(order))
