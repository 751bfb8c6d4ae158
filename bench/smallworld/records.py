"""The small world's image problems as records in the schemas of the benchmarks.

The loaders, prompts and scorers are those of the benchmarks. The data sets have their own names, and the descriptor
``smallworld.json`` marks them as synthetic.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

from PIL import Image

from bench.smallworld.problems import HELD_OUT, PAGE_OPTIONS, Family, Form, WorldProblem, WorldSplit, stream
from bench.smallworld.render import CELL, render_problem
from vold.seeding import generator

GENERATOR = "smallworld-2"
DATA_SEED = 2
WorldRows = Sequence[tuple[str, str, WorldProblem]]


@dataclass(frozen=True, slots=True)
class WorldDataset:
    """The problems of one family and form, as records of one benchmark. None: all families, all forms.

    answers: the last part of the data set's name, which no other data set may have.
    """

    benchmark: str
    family: Family | None
    form: Form | None
    answers: str
    write: Callable[[Path, WorldRows], None]

    @property
    def name(self) -> str:
        return "-".join(filter(None, ("smallworld", self.family, self.answers)))


def _jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8")


def _mmmu_pro(root: Path, rows: WorldRows) -> None:
    options = str(list(PAGE_OPTIONS[1::2]))
    _jsonl(
        root / "records.jsonl",
        [
            {"id": key, "image": image, "options": options, "answer": problem.answer, "subject": problem.family}
            for key, image, problem in rows
        ],
    )


def _mathvision(root: Path, rows: WorldRows) -> None:
    _jsonl(
        root / "test.jsonl",
        [
            {
                "id": key,
                "question": f"<image1>{question(problem)}",
                "options": [],
                "image": image,
                "answer": problem.answer,
                "solution": None,
                "level": len(problem.operations),
                "subject": problem.family,
            }
            for key, image, problem in rows
        ],
    )


def _mathvista(root: Path, rows: WorldRows) -> None:
    records = {
        key: {
            "pid": key,
            "question": question(problem),
            "image": image,
            "choices": None,
            "unit": None,
            "precision": None,
            "answer": problem.answer,
            "question_type": "free_form",
            "answer_type": "integer",
            "metadata": {
                "split": "testmini",
                "language": "english",
                "img_width": CELL * len(problem.symbols),
                "img_height": CELL,
                "source": GENERATOR,
                "category": "smallworld",
                "task": problem.mode,
                "context": "bar chart",
                "grade": "none",
                "skills": ["arithmetic reasoning"],
            },
        }
        for key, image, problem in rows
    }
    (root / "testmini.json").write_text(json.dumps(records, indent=1), encoding="utf-8")


def _logicvista(root: Path, rows: WorldRows) -> None:
    records = {
        key: {
            "imagename": Path(image).name,
            "question": question(problem),
            "answer": problem.answer,
            "reasoning": "",
            "skill": ["numerical"],
            "broad_capability": ["diagram"],
            "specific_capability": [problem.mode],
            "imagesource": GENERATOR,
            "sourcelink": "",
            "liscenced": "true",
        }
        for key, image, problem in rows
    }
    (root / "dataset.json").write_text(json.dumps(records, indent=1), encoding="utf-8")


def _transcription(root: Path, rows: WorldRows) -> None:
    records = [
        {
            "id": key,
            "image": image,
            "question": question(problem, "read"),
            "answer": problem.symbols,
            "category": problem.family,
        }
        for key, image, problem in rows
    ]
    _jsonl(root / "test.jsonl", records)


DATASETS: tuple[WorldDataset, ...] = (
    WorldDataset("mmmu_pro", "chain", "choice", "choice", _mmmu_pro),
    WorldDataset("mathvision", "chain", "free", "free", _mathvision),
    WorldDataset("mathvista", "bars", "free", "integer", _mathvista),
    WorldDataset("logicvista", "bars", "choice", "choice", _logicvista),
    WorldDataset("transcription", None, None, "read", _transcription),
)
if len({dataset.name for dataset in DATASETS}) < len(DATASETS):
    raise ValueError("two data sets of DATASETS have one name; give one of them another ``answers``")


def question(problem: WorldProblem, verb: str = "solve") -> str:
    """The question that accompanies the image. ``read`` asks for the symbols in it."""
    return f"{verb}{problem.tail}"


def write_datasets(split: str, n: int, root: Path) -> dict[str, Path]:
    """Write ``n`` problems of every data set under ``root`` and return the directory of each benchmark.

    Deterministic in ``split`` and ``n``. A complete directory is not written again.
    Raises KeyError for a split that is not held out from every training stage.
    """
    if split not in HELD_OUT.values():
        raise KeyError(f"no small-world evaluation split {split!r}; known: {', '.join(HELD_OUT.values())}")
    return {dataset.benchmark: _write(dataset, cast(WorldSplit, split), n, root) for dataset in DATASETS}


def _write(dataset: WorldDataset, split: WorldSplit, n: int, root: Path) -> Path:
    descriptor = {
        "schema": "vold-bench/dataset@1",
        "name": dataset.name,
        "benchmark": dataset.benchmark,
        "split": split,
        "synthetic": True,
        "independent": True,
        "generator": GENERATOR,
        "n": n,
    }
    target = root / f"{dataset.name}-{split}-{n}"
    marker = target / "smallworld.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == descriptor:
        return target
    work = root / f".{target.name}.{os.getpid()}"
    (work / "images").mkdir(parents=True)
    rows = []
    for index, problem in enumerate(islice(stream(DATA_SEED, dataset.name, split, dataset.family, dataset.form), n)):
        key = f"sw_{index}"
        image = f"images/{key}.png"
        Image.fromarray(render_problem(problem, generator(DATA_SEED, dataset.name, split, index))).save(work / image)
        rows.append((key, image, problem))
    dataset.write(work, rows)
    (work / marker.name).write_text(json.dumps(descriptor, indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target
