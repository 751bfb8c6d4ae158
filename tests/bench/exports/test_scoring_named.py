"""What exports say of the scoring, for results of today and older ones."""

import json
from pathlib import Path

from bench.exports.evaluation import Evaluation
from tests.helpers.evaluation_results import problems, write_result
from vold.answers import VERSION


def test_the_scoring_is_named_with_its_version_and_an_older_results_without(tmp_path: Path) -> None:
    out = write_result(tmp_path / "out", problems(["a"]), {"a": ["3"]})
    assert Evaluation(out).scoring == f"strict (version {VERSION})"
    file = out / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "scoring": "strict"}))
    (part,) = Evaluation(out).parts()
    assert part.about["scoring"] == Evaluation(out).scoring == "strict"
