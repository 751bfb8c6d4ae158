"""The three public forms of the same records: they must become the same problems."""

import ast
import json
import random
import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from bench.benchmarks.base import DatasetError
from bench.benchmarks.importing import import_split
from bench.benchmarks.registry import BENCHMARKS, read_benchmark
from bench.records import Problem
from tests.helpers.benchmark_imports import bring
from tests.helpers.benchmark_sources import FORMS, Forms, MathVista, Record, image_bytes

READ = ("repository", "hub", "tsv")


def imported(benchmark: str, forms: Forms, form: str, out: Path) -> tuple[Problem, ...]:
    bring(benchmark, getattr(forms, form)(), forms.split, out)
    return read_benchmark(benchmark, out / benchmark).problems


# Texts that tables, JSON and base64 have to carry: signs of each format, line ends, other scripts, marks.
_PIECES = ('a "quoted" word', "tab\there", "line\nend", "return\r\nend", "∠A＝110°", r"$\frac{1}{2}$", "'single'",
           "<image 1>", "<image1>", " trailing ", "[1, 2]", "nano", "None", "\x0crac", "0.50", "(3,-4)")  # fmt: skip


def _text(random: random.Random) -> str:
    return " ".join(random.choices(_PIECES, k=random.randint(1, 4)))


def _record(benchmark: str, key: int, random: random.Random) -> tuple[str, Record]:
    options = [f"{n} {_text(random)}" for n in range(random.choice([0, 2, 5]))]
    if benchmark == "mathvision":
        answer = random.choice("AB") if options else random.choice(["12", "1:2", "69{degrees}", "5 "])
        return str(key), {"id": str(key), "question": _text(random), "options": options, "answer": answer,
                          "subject": "algebra", "image": f"images/{key}.png"}  # fmt: skip
    if benchmark == "mathvista":
        kind = "text" if options else random.choice(["integer", "float", "list"])
        answer, precision = (
            {"text": (options[-1:] or [""])[0], "integer": "7", "float": "1.25", "list": "[1, 2]"}[kind],
            (2 if kind == "float" else None),
        )
        return str(key), {"pid": str(key), "question": _text(random), "image": f"images/{key}.jpg",
                          "choices": options or None, "unit": None, "precision": precision, "answer": answer,
                          "question_type": "", "answer_type": kind, "metadata": {"task": "t"}}  # fmt: skip
    if benchmark == "logicvista":
        name = f"v1_{key}"
        return name, {"imagename": f"{name}.png", "question": random.choice([_text(random), ""]),
                      "answer": random.choice(["A", "A, C", "3", ""]), "skill": ["inductive"]}  # fmt: skip
    if benchmark == "transcription":
        return str(key), {"id": str(key), "question": _text(random), "answer": _text(random), "category": "sign",
                          "image": f"images/{key}.png"}  # fmt: skip
    options = options or ["<image 2>", "<image 3>"]
    return f"test_{key}", {"id": f"test_{key}", "question": f"{_text(random)} <image 2> <image 1>",
                           "options": str(options), "answer": random.choice("AB"), "subject": "Art"}  # fmt: skip


def generated(benchmark: str, root: Path, seed: int, n: int = 8) -> Forms:
    chance = random.Random(f"{benchmark}/{seed}")
    records = dict(_record(benchmark, key, chance) for key in range(n))
    return FORMS[benchmark](root, records, {key: images_of(benchmark, record) for key, record in records.items()})


def images_of(benchmark: str, record: Record) -> list[bytes]:
    """As many as the record's marks ask for, each different from every other."""
    count = 1
    if benchmark == "mmmu_pro":
        options = " ".join(map(str, ast.literal_eval(record["options"])))
        count = max(map(int, re.findall(r"<image (\d+)>", f"{record['question']} {options}")), default=1)
    name = str(record.get("id") or record.get("imagename") or record.get("pid"))
    return [image_bytes(zlib.crc32(f"{name}/{n}".encode())) for n in range(count)]


@pytest.mark.parametrize("benchmark", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_records_in_three_forms_are_equal_problems(tmp_path: Path, benchmark: str, seed: int) -> None:
    forms = generated(benchmark, tmp_path, seed)
    ways = [imported(benchmark, forms, form, tmp_path / f"out-{form}") for form in READ]
    assert len(ways[0]) == 8
    assert ways[0] == ways[1] == ways[2]
    direct = read_benchmark(benchmark, tmp_path / "repository").problems
    assert [replace(problem, images=()) for problem in ways[0]] == [replace(problem, images=()) for problem in direct]
    for problem, before in zip(ways[0], direct, strict=True):
        assert [path.read_bytes() for path in problem.images] == [path.read_bytes() for path in before.images]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("benchmark", [name for name in FORMS if BENCHMARKS[name].url])
def test_every_real_record_is_the_same_problem_in_three_forms(
    benchmark: str, benchmark_data: Path, tmp_path: Path
) -> None:
    """With small images in place of the real ones. Edge records load, or are unscorable by id with the reason."""
    files = {"mmmu_pro": "records_standard10_1730.jsonl", "mathvision": "test.jsonl", "mathvista": "testmini.json",
             "logicvista": "dataset.json"}  # fmt: skip
    text = (benchmark_data / benchmark / files[benchmark]).read_text(encoding="utf-8")
    lines = files[benchmark].endswith("jsonl")
    records = {row["id"]: row for row in map(json.loads, text.splitlines())} if lines else json.loads(text)
    forms = FORMS[benchmark](tmp_path, records, {key: images_of(benchmark, record) for key, record in records.items()})
    if isinstance(forms, MathVista):
        forms.queries = json.loads((benchmark_data / benchmark / "query.json").read_text(encoding="utf-8"))
    direct = read_benchmark(benchmark, benchmark_data / benchmark, forms.split, require_images=False).problems
    unscorable = {"mmmu_pro": {"validation_Accounting_29"}, "logicvista": {"v1_382"}}.get(benchmark, set())
    for form in ("hub", "tsv"):
        entry = bring(benchmark, getattr(forms, form)(), forms.split, tmp_path / form, partial=False)
        assert (set(entry["unscorable"]), entry["notes"]) == (unscorable, {})
        assert all(entry["unscorable"].values())
        problems = read_benchmark(benchmark, tmp_path / form / benchmark, require_images=False).problems
        assert [replace(problem, images=()) for problem in problems] == [
            replace(problem, images=()) for problem in direct
        ]
        assert [len(problem.images) for problem in problems] == [len(images) for _, _, images in forms.items()]


def test_records_of_the_other_number_of_options_are_refused(tmp_path: Path) -> None:
    forms = generated("mmmu_pro", tmp_path, seed=1)
    few = replace(BENCHMARKS["mmmu_pro"].splits["standard10"], count=None)
    known = replace(BENCHMARKS["mmmu_pro"], splits={"standard10": few})
    with pytest.raises(DatasetError, match="options, but those of standard10 have 10"):
        import_split(known, str(forms.hub()), "standard10", tmp_path / "out")
