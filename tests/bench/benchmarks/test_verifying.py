import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bench.benchmarks.base import DatasetError
from bench.benchmarks.imported import manifest_text, read_manifest, row_hash
from bench.benchmarks.importing import import_split
from bench.benchmarks.registry import BENCHMARKS, read_benchmark
from bench.benchmarks.verifying import differences
from bench.cli.main import app
from tests.helpers.benchmark_sources import MathVision, image_bytes


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """100 imported records, more than one group of rows."""
    monkeypatch.setenv("VOLD_BENCH_CACHE", str(tmp_path / "cache"))
    records = {
        str(key): {"id": str(key), "question": f"How many bikes? {key:03}", "options": [], "answer": "4",
                   "subject": "counting", "image": f"images/{key}.png"}
        for key in range(100)
    }  # fmt: skip
    forms = MathVision(tmp_path, records, {key: [image_bytes(int(key))] for key in records})
    import_split(BENCHMARKS["mathvision"], str(forms.repository()), "test", tmp_path / "out", partial=True)
    return tmp_path / "out" / "mathvision"


def change(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_what_was_imported_verifies(home: Path) -> None:
    assert list(differences(home)) == []
    done = CliRunner().invoke(app, ["data", "verify", str(home.parent)])
    assert (done.exit_code, "unchanged since the import" in done.output) == (0, True)


def test_a_changed_question_is_named_by_its_row(home: Path) -> None:
    file = home / "test.parquet"
    change(file, file.read_bytes().index(b"bikes? 077") + 2)
    found = list(differences(home))
    assert any("row 78 ('77'): its fields were changed" in line for line in found)
    assert not any("image" in line for line in found)
    for require_images in (True, False):
        with pytest.raises(DatasetError, match="a row was changed; `vold-bench data verify"):
            read_benchmark("mathvision", home, require_images=require_images)


def test_a_changed_image_is_named_and_refused(home: Path) -> None:
    file = home / "test.parquet"
    content = image_bytes(64)
    change(file, file.read_bytes().index(content) + len(content) // 2)
    assert any("row 65 ('64'): image 1 was changed" in line for line in differences(home))
    with pytest.raises(DatasetError, match="an image was changed"):
        read_benchmark("mathvision", home)


def test_a_byte_changed_anywhere_is_found(home: Path) -> None:
    """At 60 places drawn at random, of which some fall between the rows."""
    file = home / "test.parquet"
    whole = file.read_bytes()
    chance = random.Random(7)
    named = 0
    for place in (chance.randrange(len(whole)) for _ in range(60)):
        change(file, place)
        found = list(differences(home))
        assert f"{file}: the file was changed" in found
        assert len(found) > 1
        named += any("row" in line for line in found)
        file.write_bytes(whole)
    assert named == 60


def test_changes_of_the_manifest_and_of_files_are_named(home: Path) -> None:
    described = home / "manifest.json"
    text = described.read_text()
    for old, new in (('"rows": 100', '"rows": 99'), ("\n", "\n\n"), ('"partial": true', '"partial": false')):
        described.write_text(text.replace(old, new, 1))
        assert [line for line in differences(home) if "manifest.json: was changed" in line]
        with pytest.raises(DatasetError, match=r"manifest\.json: was changed"):
            read_benchmark("mathvision", home)
    described.write_text(text)
    (home / "extra.txt").write_text("x")
    (home / "test.parquet").unlink()
    assert [line.rpartition(": ")[2] for line in differences(home)] == ["missing", "not imported"]


def test_a_split_that_names_a_file_elsewhere_is_refused(home: Path) -> None:
    splits = read_manifest(home)["splits"]
    (home / "manifest.json").write_text(manifest_text("mathvision", {**splits, "../../elsewhere": splits["test"]}))
    with pytest.raises(DatasetError, match="a split's name"):
        read_benchmark("mathvision", home)


def test_a_hash_that_names_a_file_elsewhere_is_refused(home: Path) -> None:
    rows = pq.read_table(home / "test.parquet").to_pylist()
    for row in rows:
        row["image_sha256"] = ["../../../elsewhere.png"]
        row["sha256"] = row_hash(row, row["image_sha256"])
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(home / "test.parquet")), home / "test.parquet")
    with pytest.raises(ValueError, match="is not the SHA-256 of an image"):
        read_benchmark("mathvision", home)


def test_a_table_exchanged_for_another_is_found(home: Path) -> None:
    file = home / "test.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)
    found = list(differences(home))
    assert f"{file}: 99 rows, but 100 were imported" in found
    with pytest.raises(DatasetError, match="99 rows, not as imported"):
        read_benchmark("mathvision", home)


def test_the_command_leaves_with_the_documented_code(home: Path) -> None:
    change(home / "test.parquet", 100)
    done = CliRunner().invoke(app, ["data", "verify", str(home)])
    assert isinstance(done.exception, DatasetError)
    assert done.exception.exit_code == 4


def test_the_manifest_tells_where_the_records_came_from(home: Path) -> None:
    entry = json.loads((home / "manifest.json").read_text())["splits"]["test"]
    assert (entry["form"], entry["rows"], entry["images"], entry["partial"]) == ("repository", 100, 100, True)
    assert set(entry["files"]) == {"test.jsonl"}
