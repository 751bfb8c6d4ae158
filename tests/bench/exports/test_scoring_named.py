"""What exports say about the scoring."""

from pathlib import Path

from bench.exports.evaluation import ExportedEvaluation
from tests.helpers.evaluation_results import problems, write_result
from vold.answers import VERSION


def test_the_scoring_is_named_with_its_version(tmp_path: Path) -> None:
    out = write_result(tmp_path / "out", problems(["a"]), {"a": ["3"]})
    (part,) = ExportedEvaluation(out).parts()
    assert part.about["scoring"] == ExportedEvaluation(out).scoring == f"strict (version {VERSION})"
