import ast
import io
import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.benchmarks import BENCHMARKS, DatasetError, read
from bench.benchmarks.importing import import_split
from bench.cli import app
from bench.records import Problem
from tests.bench.benchmarks.forms import (
    FORMS,
    Forms,
    MathVision,
    MathVista,
    Record,
    encoded,
    held,
    picture,
    write_table,
    write_tsv,
)

READ = ("repository", "hub", "tsv")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bring(benchmark: str, source: Path | str, split: str, out: Path, **how: bool) -> dict[str, Any]:
    partial, any_version = how.get("partial", True), how.get("any_version", True)
    return import_split(BENCHMARKS[benchmark], str(source), split, out, partial=partial, any_version=any_version)


def imported(benchmark: str, forms: Forms, form: str, out: Path, **how: bool) -> tuple[Problem, ...]:
    bring(benchmark, getattr(forms, form)(), forms.split, out, **how)
    return read(benchmark, out / benchmark).problems


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
    options = options or ["<image 2>", "<image 3>"]
    return f"test_{key}", {"id": f"test_{key}", "question": f"{_text(random)} <image 2> <image 1>",
                           "options": str(options), "answer": random.choice("AB"), "subject": "Art"}  # fmt: skip


def generated(benchmark: str, root: Path, seed: int, n: int = 8) -> Forms:
    chance = random.Random(f"{benchmark}/{seed}")
    records = dict(_record(benchmark, key, chance) for key in range(n))
    return FORMS[benchmark](root, records, {key: _pictures(benchmark, record) for key, record in records.items()})


def _pictures(benchmark: str, record: Record) -> list[bytes]:
    """As many as the record's marks ask for, each different from every other."""
    count = 1
    if benchmark == "mmmu_pro":
        options = " ".join(map(str, ast.literal_eval(record["options"])))
        count = max(map(int, re.findall(r"<image (\d+)>", f"{record['question']} {options}")), default=1)
    name = str(record.get("id") or record.get("imagename") or record.get("pid"))
    return [picture(zlib.crc32(f"{name}/{n}".encode())) for n in range(count)]


@pytest.mark.parametrize("benchmark", FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_records_in_three_forms_are_equal_problems(tmp_path: Path, benchmark: str, seed: int) -> None:
    forms = generated(benchmark, tmp_path, seed)
    ways = [imported(benchmark, forms, form, tmp_path / f"out-{form}") for form in READ]
    assert len(ways[0]) == 8
    assert ways[0] == ways[1] == ways[2]
    direct = read(benchmark, tmp_path / "repository").problems
    assert [replace(problem, images=()) for problem in ways[0]] == [replace(problem, images=()) for problem in direct]
    for problem, before in zip(ways[0], direct, strict=True):
        assert [path.read_bytes() for path in problem.images] == [path.read_bytes() for path in before.images]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("benchmark", FORMS)
def test_every_real_record_is_the_same_problem_in_three_forms(
    benchmark: str, benchmark_data: Path, tmp_path: Path
) -> None:
    """With small pictures in place of the real ones. Edge records load, or are unscorable by id with the reason."""
    files = {"mmmu_pro": "records_standard10_1730.jsonl", "mathvision": "test.jsonl", "mathvista": "testmini.json",
             "logicvista": "dataset.json"}  # fmt: skip
    text = (benchmark_data / benchmark / files[benchmark]).read_text(encoding="utf-8")
    lines = files[benchmark].endswith("jsonl")
    records = {row["id"]: row for row in map(json.loads, text.splitlines())} if lines else json.loads(text)
    forms = FORMS[benchmark](tmp_path, records, {key: _pictures(benchmark, record) for key, record in records.items()})
    if isinstance(forms, MathVista):
        forms.queries = json.loads((benchmark_data / benchmark / "query.json").read_text(encoding="utf-8"))
    direct = read(benchmark, benchmark_data / benchmark, forms.split, require_pictures=False).problems
    unscorable = {"mmmu_pro": {"validation_Accounting_29"}, "logicvista": {"v1_382"}}.get(benchmark, set())
    for form in ("hub", "tsv"):
        entry = bring(benchmark, getattr(forms, form)(), forms.split, tmp_path / form, partial=False)
        assert (set(entry["unscorable"]), entry["notes"]) == (unscorable, {})
        assert all(entry["unscorable"].values())
        problems = read(benchmark, tmp_path / form / benchmark, require_pictures=False).problems
        assert [replace(problem, images=()) for problem in problems] == [
            replace(problem, images=()) for problem in direct
        ]
        assert [len(problem.images) for problem in problems] == [len(pictures) for _, _, pictures in forms.items()]


@pytest.mark.real
def test_the_real_edge_rows_and_their_pictures_are_imported_as_they_are(benchmark_data: Path, tmp_path: Path) -> None:
    home = benchmark_data / "mathvision"
    entry = bring("mathvision", home, "edge", tmp_path)
    problems = read("mathvision", tmp_path / "mathvision").problems
    assert (entry["rows"], entry["pictures"], entry["unscorable"]) == (41, 41, {})
    direct = {problem.id: problem.images[0] for problem in read("mathvision", home, "edge").problems}
    assert all(problem.images[0].read_bytes() == direct[problem.id].read_bytes() for problem in problems)


# Faults: nothing may be left behind, and the error names the place.


def _cut_tsv(forms: Forms) -> Path:
    file = forms.tsv()
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) * 3 // 5])
    return file


def _cut_in_a_quoted_field(forms: Forms) -> Path:
    rows = [{"index": 1, "question": "one\ntwo", "choices": "[]", "answer": "1", "image": "x" * 80}]
    file = write_tsv(forms.root / "MathVision.tsv", rows)
    file.write_bytes(file.read_bytes()[: file.read_bytes().index(b"two")])
    return file


def _bomb(side: int) -> bytes:
    """A PNG whose header speaks of side x side pixels and whose body is a few bytes."""
    content = io.BytesIO()
    Image.new("1", (side, 1)).save(content, "PNG")
    whole = bytearray(content.getvalue())
    whole[20:24] = side.to_bytes(4, "big")
    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    return bytes(whole)


def _with_picture(content: bytes | None, form: str) -> Callable[[Forms], Path]:
    def write(forms: Forms) -> Path:
        first = next(iter(forms.records))
        if content is not None:
            forms.pictures = {**forms.pictures, first: [content]}
            return getattr(forms, form)()
        source: Path = getattr(forms, form)()
        if form == "repository":
            (source / forms.records[first]["image"]).unlink()
        elif form == "hub":
            rows = [
                {**record, "decoded_image": None if key == first else held(p[0])} for key, record, p in forms.items()
            ]
            write_table(source / "data" / "test-00000-of-00001-3a.parquet", rows)
        else:
            rows = [{"index": 1, "question": "?", "choices": "[]", "answer": "1", "image": None}]
            write_tsv(source, rows)
        return source

    return write


def _cut_parquet(forms: Forms) -> Path:
    home = forms.hub()
    file = next(home.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    return home


def _twice(form: str) -> Callable[[Forms], Path]:
    def write(forms: Forms) -> Path:
        source: Path = getattr(forms, form)()
        if form == "tsv":
            lines = source.read_bytes()
            source.write_bytes(lines + lines[lines.index(b"\r\n") + 2 :])
        elif form == "repository":
            (source / "test.jsonl").write_text((source / "test.jsonl").read_text() * 2)
        else:
            rows = [{**record, "decoded_image": held(p[0])} for _, record, p in forms.items()] * 2
            write_table(source / "data" / "test-00000-of-00001-3a.parquet", rows)
        return source

    return write


def _lacking_part(forms: Forms) -> Path:
    home = forms.hub()
    file = next(home.rglob("*.parquet"))
    file.rename(file.with_name("test-00000-of-00002-3a.parquet"))
    return home


FAULTS = {
    "a cut table": (_cut_tsv, "cut short"),
    "a table cut in a quoted field": (_cut_in_a_quoted_field, "cut short"),
    "no picture file": (_with_picture(None, "repository"), "record '0': no picture"),
    "no picture in a table": (_with_picture(None, "hub"), "record '0': no picture in column 'decoded_image'"),
    "no picture in a TSV": (_with_picture(None, "tsv"), "record '1': no picture"),
    "a bomb in a repository": (
        _with_picture(_bomb(9000), "repository"),
        "record '0': picture 1: .* 9000 x 9000; the limit",
    ),
    "a bomb in a table": (_with_picture(_bomb(60_000), "hub"), "record '0': picture 1: .*3600000000 pixels"),
    "a bomb in a TSV": (_with_picture(_bomb(9000), "tsv"), "record '0': picture 1: .* 9000 x 9000; the limit"),
    "a damaged picture": (_with_picture(picture(3, (200, 200))[:-60], "hub"), "record '0': picture 1: unreadable"),
    "a cut parquet file": (_cut_parquet, "unreadable|take a fresh copy"),
    "an id twice in a TSV": (_twice("tsv"), "the id '0' stands there twice"),
    "an id twice in a repository": (_twice("repository"), "the id '0' stands there twice"),
    "an id twice in a table": (_twice("hub"), "the id '0' stands there twice"),
    "one part of two": (_lacking_part, "1 of 2 parts are there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_source_is_refused_and_nothing_is_half_imported(fault: str, tmp_path: Path) -> None:
    write, complaint = FAULTS[fault]
    forms = MathVision(tmp_path, *_two_plain_records())
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=complaint):
        bring("mathvision", write(forms), "test", out)
    assert not list(out.glob("**/*"))


def test_a_failed_import_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *_two_plain_records())
    bring("mathvision", forms.hub(), "test", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "mathvision").iterdir()}
    with pytest.raises(DatasetError):
        bring("mathvision", _cut_tsv(forms), "test", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "mathvision").iterdir()} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mathvision"]


def _two_plain_records() -> tuple[dict[str, Record], dict[str, list[bytes]]]:
    records = {
        str(key): {"id": str(key), "question": f"How many? {key}", "options": [], "answer": "4", "subject": "counting",
                   "image": f"images/{key}.png"}
        for key in range(2)
    }  # fmt: skip
    return records, {key: [picture(int(key), (200, 200))] for key in records}


def run(*arguments: str) -> Any:
    """The exit code as the console script gives it, through its own reporting of errors."""
    from bench.cli import fail

    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        with pytest.raises(SystemExit) as ended:
            fail(done.exception)
        return ended.value.code, str(done.exception)
    return done.exit_code, done.output


def test_a_failed_import_leaves_with_the_documented_code(tmp_path: Path) -> None:
    file = _cut_tsv(MathVision(tmp_path, *_two_plain_records()))
    common = ("data", "import", str(file), "--benchmark", "mathvision", "--split", "test", "--out", str(tmp_path / "o"))
    code, message = run(*common)
    assert code == 4
    assert "MD5" in message and "93f6de14f7916e598aa1b7165589831e" in message
    code, message = run(*common, "--any-version", "--partial")
    assert code == 4
    assert "cut short" in message


def test_a_table_of_another_md5_is_taken_only_when_asked_and_the_manifest_says_so(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *_two_plain_records())
    with pytest.raises(DatasetError, match="--any-version"):
        bring("mathvision", forms.tsv(), "test", tmp_path / "out", any_version=False)
    entry = bring("mathvision", forms.tsv(), "test", tmp_path / "out")
    assert entry["version"] == "other"


def test_a_table_of_the_known_md5_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    file = MathVision(tmp_path, *_two_plain_records()).tsv()
    known = BENCHMARKS["mathvision"]
    sums = {"test": replace(known.splits["test"], md5=hashlib.md5(file.read_bytes()).hexdigest())}
    entry = import_split(replace(known, splits=sums), str(file), "test", tmp_path / "out", partial=True)
    assert entry["version"] == "known"


def test_fewer_records_than_the_split_has_must_be_declared(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *_two_plain_records())
    with pytest.raises(DatasetError, match=r"2 records, mathvision test has 3040; .*--partial"):
        bring("mathvision", forms.repository(), "test", tmp_path / "out", partial=False)
    assert bring("mathvision", forms.hub(), "test", tmp_path / "out")["partial"] is True
    code, output = run("data", "list", str(tmp_path / "out"))
    assert code == 0
    assert "partial" in output


def test_records_of_the_other_number_of_options_are_refused(tmp_path: Path) -> None:
    forms = generated("mmmu_pro", tmp_path, seed=1)
    few = replace(BENCHMARKS["mmmu_pro"].splits["standard10"], count=None)
    known = replace(BENCHMARKS["mmmu_pro"], splits={"standard10": few})
    with pytest.raises(DatasetError, match="options, those of standard10 have 10"):
        import_split(known, str(forms.hub()), "standard10", tmp_path / "out")


def test_a_row_may_share_the_picture_of_another_that_comes_before_or_after(tmp_path: Path) -> None:
    rows = [
        {"index": key, "question": f"{key}?", "choices": "[]", "answer": "1", "image": image}
        for key, image in (("7", "9"), ("8", None), ("9", None), ("10", "8"))
    ]
    rows[1]["image"], rows[2]["image"] = encoded([picture(1)]), encoded([picture(2)])
    bring("mathvision", write_tsv(tmp_path / "MathVision.tsv", rows), "test", tmp_path / "out")
    found = {p.id: p.images[0].read_bytes() for p in read("mathvision", tmp_path / "out" / "mathvision").problems}
    assert found == {"7": picture(2), "8": picture(1), "9": picture(2), "10": picture(1)}


def test_options_in_columns_keep_their_letters(tmp_path: Path) -> None:
    row = {"index": 0, "id": "test_1", "question": "Which?", "A": "one", "B": "", "C": "three", "D": "nan", "E": "",
           "answer": "C", "category": "Art", "image": encoded([picture(1)])}  # fmt: skip
    bring("mmmu_pro", write_tsv(tmp_path / "MMMU_Pro_10c.tsv", [row]), "standard10", tmp_path / "out")
    (problem,) = read("mmmu_pro", tmp_path / "out" / "mmmu_pro").problems
    assert problem.options == ("one", "", "three")
    bring("mmmu_pro", write_tsv(tmp_path / "MMMU_Pro_V.tsv", [row]), "vision", tmp_path / "out")
    assert read("mmmu_pro", tmp_path / "out" / "mmmu_pro", "vision").problems[0].question == ""


def test_the_four_options_and_the_pages_come_from_their_own_configuration(tmp_path: Path) -> None:
    row = {"id": "test_1", "options": "['a', 'b', 'c', 'd']", "answer": "B", "subject": "Art"}
    write_table(tmp_path / "hub" / "standard (4 options)" / "test-00000-of-00001.parquet",
                [{**row, "question": "<image 2>, <image 1>?", "image_1": held(picture(1)), "image_2": held(picture(2)),
                  "image_3": None}])  # fmt: skip
    write_table(tmp_path / "hub" / "vision" / "test-00000-of-00001.parquet", [{**row, "image": held(picture(3))}])
    for split, source in (("standard4", tmp_path / "hub"), ("vision", tmp_path / "hub" / "vision")):
        bring("mmmu_pro", source, split, tmp_path / "out")
    four = read("mmmu_pro", tmp_path / "out" / "mmmu_pro", "standard4").problems[0]
    page = read("mmmu_pro", tmp_path / "out" / "mmmu_pro", "vision").problems[0]
    assert [path.read_bytes() for path in four.images] == [picture(1), picture(2)]
    assert (page.question, page.options, page.images[0].read_bytes()) == ("", ("a", "b", "c", "d"), picture(3))
    with pytest.raises(ValueError, match="no data file"):
        bring("mmmu_pro", tmp_path / "hub", "standard10", tmp_path / "out")


def test_a_second_split_keeps_the_first_and_other_files_are_never_replaced(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *_two_plain_records())
    source = forms.repository()
    (source / "testmini.jsonl").write_text((source / "test.jsonl").read_text().splitlines()[0] + "\n")
    bring("mathvision", source, "testmini", tmp_path / "out")
    bring("mathvision", source, "test", tmp_path / "out")
    home = tmp_path / "out" / "mathvision"
    assert {path.name for path in home.iterdir()} == {"manifest.json", "test.parquet", "testmini.parquet"}
    assert len(read("mathvision", home, "testmini").problems) == 1
    assert read("mathvision", home).split == "test"
    assert read("mathvision", home / "testmini.parquet").split == "testmini"
    other = tmp_path / "mine" / "mathvision"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="holds other files"):
        bring("mathvision", source, "test", tmp_path / "mine")
    assert (other / "notes.txt").read_text() == "mine"


def test_two_imports_are_the_same_bytes(tmp_path: Path) -> None:
    source = MathVision(tmp_path, *_two_plain_records()).repository()
    for out in ("a", "b"):
        bring("mathvision", source, "test", tmp_path / out)
    for name in ("manifest.json", "test.parquet"):
        assert (tmp_path / "a" / "mathvision" / name).read_bytes() == (
            tmp_path / "b" / "mathvision" / name
        ).read_bytes()


def test_an_imported_benchmark_is_scored_without_its_pictures(tmp_path: Path, cache: Path) -> None:
    bring("mathvision", MathVision(tmp_path, *_two_plain_records()).hub(), "test", tmp_path / "out")
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "0", "response": "\\\\boxed{4}"}\n{"id": "1", "response": "Answer: 5"}\n')
    code, output = run("score", str(file), "--benchmark", "mathvision", "--records", str(tmp_path / "out/mathvision"))
    assert code == 0
    assert "1 of 2" in output
    assert not cache.exists()


def test_a_fetched_table_is_read_from_the_hubs_cache_with_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's layout is the hub client's own: blobs named by their hash, a snapshot of links to them."""
    import hashlib

    table = next(MathVision(tmp_path, *_two_plain_records()).hub().rglob("*.parquet"))
    name, commit = hashlib.sha256(table.read_bytes()).hexdigest(), "c" * 40
    home = tmp_path / "hf" / "datasets--MathLLMs--MathVision"
    blob, link = home / "blobs" / name, home / "snapshots" / commit / "data" / "test-00000-of-00001.parquet"
    for path in (blob, link, home / "refs" / "main"):
        path.parent.mkdir(parents=True)
    table.rename(blob)
    link.symlink_to(blob)
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = bring("mathvision", "hub:MathLLMs/MathVision@main", "test", tmp_path / "out")
    assert (entry["form"], entry["revision"], entry["rows"]) == ("hub", commit, 2)
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(DatasetError, match="differs from the file on the hub"):
        bring("mathvision", "hub:MathLLMs/MathVision@main", "test", tmp_path / "out")


def test_a_place_that_holds_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        bring("mathvision", tmp_path / "nowhere", "test", tmp_path / "out")
    with pytest.raises(DatasetError, match="has several; choose from test, testmini"):
        import_split(BENCHMARKS["mathvision"], str(tmp_path), None, tmp_path / "out")
    with pytest.raises(DatasetError, match="vold-bench data import"):
        read("mathvision", tmp_path)
