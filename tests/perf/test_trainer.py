"""The program that compares this trainer with TRL."""

import pytest

from bench.smallworld import checkpoint_path
from perf.trainer import MedianRange, comparison_table, ratios, run_in_process
from perf.trial import Step, Trial, TrialResult, TrialSide
from tests.conftest import need


def run(side: TrialSide, seconds: list[float], tokens: int, peak: float = 500.0, teacher: float = 0.0) -> TrialResult:
    """A run whose steps take ``seconds``: a quarter each of rollout and train, the rest untimed or the teacher's."""
    steps = tuple(Step(tokens, 2 * s, s, s / 4, 0.0, s / 4, teacher) for s in seconds)
    return TrialResult(side, False, steps, peak, peak / 5)


def test_ratios_compare_neighbouring_runs_and_show_their_range():
    ours = [run("grpo", [1.0, 1.0, 5.0], 100), run("grpo", [2.0, 2.0, 2.0], 100)]
    peer = [run("trl", [3.0, 3.0, 3.0], 50, peak=1000), run("trl", [8.0, 8.0, 8.0], 50, peak=1500)]
    rows = ratios(ours, peer)
    assert rows["step rate"] == MedianRange(3.5, 3.0, 4.0)  # medians of a run's steps: 3 / 1 and 8 / 2
    assert rows["step rate, processor time"] == MedianRange(3.5, 3.0, 4.0)
    # Tokens: 300 in 7 s against 150 in 9 s, and 300 in 6 s against 150 in 24 s.
    assert rows["rollout tokens/s"].low == pytest.approx(300 / 7 * 9 / 150)
    assert rows["rollout tokens/s"].high == pytest.approx(300 / 6 * 24 / 150)
    assert rows["peak memory"] == MedianRange(2.5, 2.0, 3.0)


def test_a_stage_that_one_side_does_not_have_has_no_ratio():
    rows = ratios([run("vold", [1.0], 10, teacher=0.3)], [run("trl", [2.0], 10)])
    assert "train tokens/s" in rows and "teacher tokens/s" not in rows and "reward tokens/s" not in rows


def test_runs_without_a_partner_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        ratios([run("grpo", [1.0], 1)], [])


def test_the_table_has_both_sides_and_only_the_comparisons_that_were_run():
    text = comparison_table({("grpo", False): [run("grpo", [0.5], 40)], ("trl", False): [run("trl", [2.0], 40)]})
    assert "| text: grpo | 500 | 40 | 320 |  |  | 320 | 500 |" in text
    assert "| text: GRPO | step rate | 4.00 (4.00 to 4.00) | 3 |" in text
    assert "teacher |" not in text.split("against")[1] and "images" not in text


@pytest.mark.slow
def test_both_sides_run_the_same_step():
    need("trl", "peers")
    small = {"prompts_per_step": 2, "group_size": 4, "max_new_tokens": 6}
    for side in ("vold", "trl"):
        measured = run_in_process(Trial(side, str(checkpoint_path("student_a")), False, 1, 1, 1, small))
        (step,) = measured.steps
        assert 8 <= step.tokens <= 8 * 6
        assert min(step.rollout, step.reward, step.train) > 0
        assert step.rollout + step.reward + step.teacher + step.train <= step.step
        assert (step.teacher > 0) == (side == "vold")
        assert measured.peak_mb > measured.grown_mb > 0
