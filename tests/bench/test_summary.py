"""``summary.json``: what is written is read back, and anything else is refused with a way out."""

import json
from pathlib import Path

import pytest

from bench.errors import ConfigurationError
from bench.summary import FILE, SCHEMA, Measure, Summary, read, write
from tests.helpers.evaluation_results import problems, write_result


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return read(write_result(tmp_path, problems(["a", "b"]), {"a": [r"\boxed{3}"]}))


def test_a_summary_is_read_back_as_it_was_written(summary: Summary, tmp_path: Path) -> None:
    text = (tmp_path / FILE).read_bytes()
    assert json.loads(text)["schema"] == SCHEMA and (summary.samples, summary.missing) == (1, 1)
    assert isinstance(summary.benchmarks["mathvision"].measures["avg@1"], Measure)
    write(summary, tmp_path)
    assert (tmp_path / FILE).read_bytes() == text and read(tmp_path) == summary


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "vold-bench/summary@0"}, "its schema is vold-bench/summary@0, but this version reads"),
        ({"schema": None}, "its schema is not named"),
        ({"seed": "seven"}, "seed: input should be a valid integer"),
        ({"model": {"name": "a"}}, r"model\.sha256: field required"),
        ({"benchmarks": []}, "benchmarks: "),
    ],
)
def test_another_schema_and_a_wrong_field_are_named_with_the_way_out(
    change: dict[str, object], words: str, summary: Summary, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(json.dumps({**summary.to_json(), **change}))
    with pytest.raises(ConfigurationError, match=rf"summary\.json: {words}.*evaluate again with --fresh"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"schema": 1}'])
def test_a_file_that_is_not_a_summary_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigurationError, match="evaluate again"):
        read(tmp_path)
