"""Faulty sources: nothing may be left behind, and the error names the place."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bench.benchmarks.base import DatasetError
from tests.helpers.benchmark_imports import bring, run, two_plain_records
from tests.helpers.benchmark_sources import Forms, MathVision, held, image_bytes, write_table, write_tsv


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


def _with_image(content: bytes | None, form: str) -> Callable[[Forms], Path]:
    def write(forms: Forms) -> Path:
        first = next(iter(forms.records))
        if content is not None:
            forms.images = {**forms.images, first: [content]}
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
    "a cut table": (_cut_tsv, "truncated"),
    "a table cut in a quoted field": (_cut_in_a_quoted_field, "truncated"),
    "no image in a table": (_with_image(None, "hub"), "record '0': no image in column 'decoded_image'"),
    "no image in a TSV": (_with_image(None, "tsv"), "record '1': no image"),
    "a bomb in a repository": (
        _with_image(_bomb(9000), "repository"),
        "record '0': image 1: .* 9000 x 9000; the limit",
    ),
    "a bomb in a table": (_with_image(_bomb(60_000), "hub"), "record '0': image 1: .*3600000000 pixels"),
    "a bomb in a TSV": (_with_image(_bomb(9000), "tsv"), "record '0': image 1: .* 9000 x 9000; the limit"),
    "a damaged image": (_with_image(image_bytes(3, (200, 200))[:-60], "hub"), "record '0': image 1: unreadable"),
    "a cut parquet file": (_cut_parquet, "unreadable|get a new copy"),
    "an id twice in a TSV": (_twice("tsv"), "the id '0' occurs twice"),
    "an id twice in a repository": (_twice("repository"), "the id '0' occurs twice"),
    "an id twice in a table": (_twice("hub"), "the id '0' occurs twice"),
    "one part of two": (_lacking_part, "only 1 of 2 parts"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_source_is_refused_and_nothing_is_half_imported(fault: str, tmp_path: Path) -> None:
    write, complaint = FAULTS[fault]
    forms = MathVision(tmp_path, *two_plain_records())
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=complaint):
        bring("mathvision", write(forms), "test", out)
    assert not list(out.glob("**/*"))


def test_a_failed_import_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    forms = MathVision(tmp_path, *two_plain_records())
    bring("mathvision", forms.hub(), "test", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "mathvision").iterdir()}
    with pytest.raises(DatasetError):
        bring("mathvision", _cut_tsv(forms), "test", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "mathvision").iterdir()} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mathvision"]


def test_a_failed_import_leaves_with_the_documented_code(tmp_path: Path) -> None:
    file = _cut_tsv(MathVision(tmp_path, *two_plain_records()))
    common = ("data", "import", str(file), "--benchmark", "mathvision", "--split", "test", "--out", str(tmp_path / "o"))
    code, message = run(*common)
    assert code == 4
    assert "MD5" in message and "93f6de14f7916e598aa1b7165589831e" in message
    code, message = run(*common, "--any-version", "--partial")
    assert code == 4
    assert "truncated" in message
