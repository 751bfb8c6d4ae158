"""The program that times scorers."""

from pathlib import Path

import pytest

from perf.scoring import ScoringRun, our_scorer, processor_seconds, sample_predictions, scoring_table


@pytest.mark.slow
@pytest.mark.real
def test_rows_are_the_same_in_every_run_and_repeat_when_they_run_out(benchmark_data: Path) -> None:
    parts = sample_predictions(benchmark_data, 19_000)
    assert sum(len(part.predictions) for part in parts) == 19_000
    assert {part.benchmark for part in parts} == {"mathvision", "mathvista", "mmmu_pro", "logicvista"}
    few, again = sample_predictions(benchmark_data, 40), sample_predictions(benchmark_data, 40)
    assert [part.predictions for part in few] == [part.predictions for part in again]
    judged, right = our_scorer("official")(few)
    assert judged == 40 and 0 < right < 40


def test_processor_seconds_never_decrease() -> None:
    before = processor_seconds()
    sum(number * number for number in range(1_000_000))
    assert before <= processor_seconds() < before + 10


def test_the_table_has_a_row_for_each_side_with_medians() -> None:
    runs = [ScoringRun("strict", 1000, wall, 2 * wall, 1000, 400) for wall in (1.0, 2.0, 9.0)]
    assert "| strict | 1,000 | 1,000 | 400 | 2.0 (1.0 to 9.0) | 4.0 (2.0 to 18.0) | 4.00 |" in scoring_table(runs)
