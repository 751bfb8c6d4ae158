import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.benchmarks.base import DatasetError
from bench.benchmarks.importing import RecordRemark, import_split, remarks
from bench.benchmarks.registry import BENCHMARKS, read_benchmark
from bench.smallworld.sources import dataset_path
from tests.helpers.benchmark_imports import bring, run, two_plain_records
from tests.helpers.benchmark_sources import MathVision, encoded, held, image_bytes, write_table, write_tsv


@pytest.mark.real
def test_the_real_edge_rows_and_their_images_are_imported_as_they_are(benchmark_data: Path, tmp_path: Path) -> None:
    home = benchmark_data / "mathvision"
    entry = bring("mathvision", home, "edge", tmp_path)
    problems = read_benchmark("mathvision", tmp_path / "mathvision").problems
    assert (entry["rows"], entry["images"], entry["unscorable"]) == (41, 41, {})
    direct = {problem.id: problem.images[0] for problem in read_benchmark("mathvision", home, "edge").problems}
    assert all(problem.images[0].read_bytes() == direct[problem.id].read_bytes() for problem in problems)


def test_a_table_of_another_md5_is_taken_only_when_asked_and_the_manifest_says_so(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *two_plain_records())
    with pytest.raises(DatasetError, match="--any-version"):
        bring("mathvision", forms.tsv(), "test", tmp_path / "out", any_version=False)
    entry = bring("mathvision", forms.tsv(), "test", tmp_path / "out")
    assert entry["version"] == "other"


def test_a_table_of_the_known_md5_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    file = MathVision(tmp_path, *two_plain_records()).tsv()
    known = BENCHMARKS["mathvision"]
    sums = {"test": replace(known.splits["test"], md5=hashlib.md5(file.read_bytes()).hexdigest())}
    entry = import_split(replace(known, splits=sums), str(file), "test", tmp_path / "out", partial=True)
    assert entry["version"] == "known"


def test_fewer_records_than_the_split_has_must_be_declared(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *two_plain_records())
    with pytest.raises(DatasetError, match=r"2 records, but mathvision test has 3040; .*--partial"):
        bring("mathvision", forms.repository(), "test", tmp_path / "out", partial=False)
    assert bring("mathvision", forms.hub(), "test", tmp_path / "out")["partial"] is True
    code, output = run("data", "list", str(tmp_path / "out"))
    assert code == 0
    assert "partial" in output


def test_records_without_their_image_files_are_left_out_only_when_that_is_declared(tmp_path: Path) -> None:
    source = MathVision(tmp_path, *two_plain_records()).repository()
    (source / "images" / "0.png").unlink()
    with pytest.raises(DatasetError, match=r"record '0': no image .*0\.png; .*--partial"):
        bring("mathvision", source, "test", tmp_path / "out", partial=False)
    assert not list((tmp_path / "out").glob("*"))
    entry = bring("mathvision", source, "test", tmp_path / "out")
    assert (entry["rows"], list(entry["left_out"]), entry["partial"]) == (1, ["0"], True)
    assert [problem.id for problem in read_benchmark("mathvision", tmp_path / "out" / "mathvision").problems] == ["1"]
    code, output = run("data", "verify", str(tmp_path / "out"))
    assert (code, "unchanged since the import" in output) == (0, True)
    (source / "images" / "1.png").unlink()
    with pytest.raises(DatasetError, match="no record has its images"):
        bring("mathvision", source, "test", tmp_path / "none")


def test_records_with_the_same_reason_share_one_remark_with_the_first_ids() -> None:
    entry = {
        "left_out": {str(key): f"no image /data/a {key}.png" for key in range(5)},
        "unscorable": {"a": "the gold 'F' is neither a label nor a text of its 5 options",
                       "b": "the record has no answer",
                       "c": "the gold 'G' is neither a label nor a text of its 4 options"},
        "notes": {},
    }  # fmt: skip
    assert remarks(entry) == [
        RecordRemark("left out", "an image file is missing", 5, ("0", "1", "2")),
        RecordRemark(
            "cannot be scored", "the gold ... is neither a label nor a text of its ... options", 2, ("a", "c")
        ),
        RecordRemark("cannot be scored", "the record has no answer", 1, ("b",)),
    ]


def test_the_list_gives_the_missing_images_next_to_the_number_of_records(tmp_path: Path) -> None:
    source = MathVision(tmp_path / "there", *two_plain_records()).repository()
    source.rename(tmp_path / "mathvision")
    (tmp_path / "mathvision" / "images" / "1.png").unlink()
    _, output = run("data", "list", str(tmp_path), "--json")
    (row,) = [
        row for row in json.loads(output)["splits"] if (row["benchmark"], row.get("split")) == ("mathvision", "test")
    ]
    assert row["problems"] == 2
    assert row["note"] == "1 lack an image (1 files, such as images/1.png)"


def test_generated_records_are_listed_as_synthetic_by_their_own_name(tmp_path: Path) -> None:
    dataset_path("mathvision", "smallworld/check?n=2", tmp_path / "made").rename(tmp_path / "mathvision")
    _, output = run("data", "list", str(tmp_path), "--json")
    (row,) = [row for row in json.loads(output)["splits"] if row["benchmark"] == "mathvision" and row["problems"]]
    assert row["note"] == "smallworld-chain-free (synthetic), split check"


def test_a_row_may_share_the_image_of_another_that_comes_before_or_after(tmp_path: Path) -> None:
    rows = [
        {"index": key, "question": f"{key}?", "choices": "[]", "answer": "1", "image": image}
        for key, image in (("7", "9"), ("8", None), ("9", None), ("10", "8"))
    ]
    rows[1]["image"], rows[2]["image"] = encoded([image_bytes(1)]), encoded([image_bytes(2)])
    bring("mathvision", write_tsv(tmp_path / "MathVision.tsv", rows), "test", tmp_path / "out")
    found = {
        p.id: p.images[0].read_bytes() for p in read_benchmark("mathvision", tmp_path / "out" / "mathvision").problems
    }
    assert found == {"7": image_bytes(2), "8": image_bytes(1), "9": image_bytes(2), "10": image_bytes(1)}


def test_options_in_columns_keep_their_letters(tmp_path: Path) -> None:
    row = {"index": 0, "id": "test_1", "question": "Which?", "A": "one", "B": "", "C": "three", "D": "nan", "E": "",
           "answer": "C", "category": "Art", "image": encoded([image_bytes(1)])}  # fmt: skip
    bring("mmmu_pro", write_tsv(tmp_path / "MMMU_Pro_10c.tsv", [row]), "standard10", tmp_path / "out")
    (problem,) = read_benchmark("mmmu_pro", tmp_path / "out" / "mmmu_pro").problems
    assert problem.options == ("one", "", "three")
    bring("mmmu_pro", write_tsv(tmp_path / "MMMU_Pro_V.tsv", [row]), "vision", tmp_path / "out")
    assert read_benchmark("mmmu_pro", tmp_path / "out" / "mmmu_pro", "vision").problems[0].question == ""


def test_the_four_options_and_the_pages_come_from_their_own_configuration(tmp_path: Path) -> None:
    row = {"id": "test_1", "options": "['a', 'b', 'c', 'd']", "answer": "B", "subject": "Art"}
    write_table(tmp_path / "hub" / "standard (4 options)" / "test-00000-of-00001.parquet",
                [{**row, "question": "<image 2>, <image 1>?", "image_1": held(image_bytes(1)),
                  "image_2": held(image_bytes(2)), "image_3": None}])  # fmt: skip
    write_table(tmp_path / "hub" / "vision" / "test-00000-of-00001.parquet", [{**row, "image": held(image_bytes(3))}])
    for split, source in (("standard4", tmp_path / "hub"), ("vision", tmp_path / "hub" / "vision")):
        bring("mmmu_pro", source, split, tmp_path / "out")
    four = read_benchmark("mmmu_pro", tmp_path / "out" / "mmmu_pro", "standard4").problems[0]
    page = read_benchmark("mmmu_pro", tmp_path / "out" / "mmmu_pro", "vision").problems[0]
    assert [path.read_bytes() for path in four.images] == [image_bytes(1), image_bytes(2)]
    assert (page.question, page.options, page.images[0].read_bytes()) == ("", ("a", "b", "c", "d"), image_bytes(3))
    with pytest.raises(ValueError, match="no data file"):
        bring("mmmu_pro", tmp_path / "hub", "standard10", tmp_path / "out")


def test_a_second_split_keeps_the_first_and_other_files_are_never_replaced(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *two_plain_records())
    source = forms.repository()
    (source / "testmini.jsonl").write_text((source / "test.jsonl").read_text().splitlines()[0] + "\n")
    bring("mathvision", source, "testmini", tmp_path / "out")
    bring("mathvision", source, "test", tmp_path / "out")
    home = tmp_path / "out" / "mathvision"
    assert {path.name for path in home.iterdir()} == {"manifest.json", "test.parquet", "testmini.parquet"}
    assert len(read_benchmark("mathvision", home, "testmini").problems) == 1
    assert read_benchmark("mathvision", home).split == "test"
    assert read_benchmark("mathvision", home / "testmini.parquet").split == "testmini"
    other = tmp_path / "mine" / "mathvision"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="contains other files"):
        bring("mathvision", source, "test", tmp_path / "mine")
    assert (other / "notes.txt").read_text() == "mine"


def test_two_imports_are_the_same_bytes(tmp_path: Path) -> None:
    source = MathVision(tmp_path, *two_plain_records()).repository()
    for out in ("a", "b"):
        bring("mathvision", source, "test", tmp_path / out)
    for name in ("manifest.json", "test.parquet"):
        assert (tmp_path / "a" / "mathvision" / name).read_bytes() == (
            tmp_path / "b" / "mathvision" / name
        ).read_bytes()


def test_an_imported_benchmark_is_scored_without_itsimages_of(tmp_path: Path, cache: Path) -> None:
    bring("mathvision", MathVision(tmp_path, *two_plain_records()).hub(), "test", tmp_path / "out")
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "0", "response": "\\\\boxed{4}"}\n{"id": "1", "response": "Answer: 5"}\n')
    code, output = run("score", str(file), "--benchmark", "mathvision", "--data", str(tmp_path / "out/mathvision"))
    assert code == 0
    assert "1 of 2" in output
    assert not cache.exists()


def test_a_fetched_table_is_read_from_the_hubs_cache_with_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's layout is the hub client's own: blobs named by their hash, a snapshot of links to them."""
    import hashlib

    table = next(MathVision(tmp_path, *two_plain_records()).hub().rglob("*.parquet"))
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
        read_benchmark("mathvision", tmp_path)
