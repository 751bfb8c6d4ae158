from pathlib import Path
from typing import Any

import pytest

from bench.benchmarks.base import Dataset
from bench.errors import ConfigurationError
from bench.evaluation.baselines import baselines
from bench.evaluation.config import EvalConfig
from bench.evaluation.selection import read_selections, select
from bench.records import Problem


def problem(id: str, answer: str, options: tuple[str, ...] = (), **changes: Any) -> Problem:
    kind = changes.pop("kind", "choice" if options else "integer")
    return Problem("mathvision", id, "?", (), options, answer, kind, id, **changes)


FOUR, TWO = ("w", "x", "y", "z"), ("yes", "no")


def test_chance_is_one_over_the_options_and_zero_for_free_answers():
    asked = [problem("1", "A", FOUR), problem("2", "B", TWO), problem("3", "7"), problem("4", "7")]
    assert baselines(asked, asked).chance == pytest.approx((1 / 4 + 1 / 2) / 4)


def test_the_majority_answer_comes_from_the_whole_data_set_for_each_number_of_options():
    records = [problem("1", "B", FOUR), problem("2", "B", FOUR), problem("3", "A", FOUR), problem("4", "yes", TWO),
               problem("5", "3"), problem("6", "3"), problem("7", "4")]  # fmt: skip
    asked = [records[0], records[2], records[3], records[4], records[6]]
    # Right: B of four options, A (by its text) of two, 3 of the numbers.
    assert baselines(records, asked).majority == pytest.approx(3 / 5)


def test_options_in_the_image_are_counted_by_the_labels_that_occur():
    asked = [problem("1", "A", kind="choice"), problem("2", "C", kind="choice"), problem("3", "A, C", kind="choices")]
    assert baselines(asked, asked).chance == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_records_that_cannot_be_scored_do_not_count():
    records = [problem("1", "A", TWO), problem("2", "B", TWO, unscorable="no"), problem("3", "B", TWO, unscorable="no")]
    assert baselines(records, records[:1]).majority == 1


def test_ids_keep_the_order_of_the_records_and_a_limit_counts_among_them():
    dataset = Dataset("mathvision", "mathvision", "test", False, tuple(problem(str(n), "1") for n in range(9)))
    assert [p.id for p in select(dataset, None, 0, ("7", "2", "5")).problems] == ["2", "5", "7"]
    assert len(select(dataset, 2, 0, ("7", "2", "5")).problems) == 2


def records(root: Path, ids: list[str]) -> Path:
    import json

    root.mkdir()
    rows = [{"id": id, "question": "?", "options": [], "answer": "" if id == "void" else "3", "image": "a.png",
             "level": 1, "subject": "counting"} for id in ids]  # fmt: skip
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize(("id", "text"), [("corner-12", "did you mean 'corner-11'"), ("void", "cannot be scored")])
def test_an_unusable_id_is_refused_with_the_reason(id, text, tmp_path):
    root = records(tmp_path / "data", ["corner-11", "edge-2", "void"])
    with pytest.raises(ConfigurationError, match=text):
        read_selections(EvalConfig(ids=("edge-2", id), blind=True), {"mathvision": root})
