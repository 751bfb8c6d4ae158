"""The weights of both terms at every step."""

import math

import pytest

from vold.config import DistillConfig, RLConfig
from vold.objectives.schedule import TermWeights, distill_weight, term_weights


def weights(**fields: object) -> list[tuple[float, float]]:
    config = RLConfig.model_validate(fields)
    return [(w.policy, w.distill) for w in (term_weights(config, step) for step in range(config.steps))]


def test_the_weight_follows_its_schedule_from_the_delay_to_the_last_step() -> None:
    def weights(**fields: object) -> list[float]:
        config = DistillConfig.model_validate({"weight": 1.0, **fields})
        return [distill_weight(config, step, 7) for step in range(7)]

    assert weights() == [1.0] * 7
    assert weights(delay=2) == [0.0] * 2 + [1.0] * 5
    assert weights(schedule="linear", weight_end=0.2, delay=2) == pytest.approx([0, 0, 1.0, 0.8, 0.6, 0.4, 0.2])
    half = math.sqrt(0.5) / 2
    assert weights(schedule="cosine", weight_end=0.0, delay=2) == pytest.approx(
        [0, 0, 1, 0.5 + half, 0.5, 0.5 - half, 0]
    )
    rising = DistillConfig(weight=0.0, weight_end=0.4, schedule="linear")
    assert rising.active and distill_weight(rising, 6, 7) == pytest.approx(0.4)
    for fields in ({"weight_end": 0.1}, {"schedule": "cosine"}):
        with pytest.raises(ValueError, match="go together"):
            weights(**fields)


def test_joint_steps_have_both_terms() -> None:
    assert weights(steps=3, reward_weight=2, distill={"weight": 0.1}) == [(2, 0.1)] * 3
    assert weights(steps=3, distill={"weight": 0.1, "delay": 1}) == [(1, 0), (1, 0.1), (1, 0.1)]


@pytest.mark.parametrize(("steps", "share", "border"), [(6, 0.5, 3), (7, 0.3, 2), (2, 0.5, 1), (40, 0.25, 10)])
def test_in_two_parts_the_teacher_term_comes_alone_and_then_the_policy_term(
    steps: int, share: float, border: int
) -> None:
    fields = {"steps": steps, "schedule": "distill_then_reward", "distill_share": share, "reward_weight": 2}
    assert weights(**fields, distill={"weight": 0.1}) == [(0, 0.1)] * border + [(2, 0)] * (steps - border)
    parts = RLConfig.model_validate({**fields, "distill": {"weight": 0.1}}).parts
    assert parts == (range(border), range(border, steps))


def test_in_two_parts_the_weight_reaches_its_end_at_the_last_step_of_the_first() -> None:
    distill = {"weight": 1.0, "weight_end": 0.5, "schedule": "linear"}
    rows = weights(steps=6, schedule="distill_then_reward", distill=distill)
    assert rows == [(0, 1), (0, 0.75), (0, 0.5), (1, 0), (1, 0), (1, 0)]


def test_two_parts_that_optimise_nothing_are_refused() -> None:
    for fields, message in (
        ({"distill": {"weight": 0}}, "values above 0"),
        ({"distill": {"weight": 1}, "reward_weight": 0}, "values above 0"),
        ({"distill": {"weight": 1, "weight_end": 0, "schedule": "linear"}}, "values above 0"),
        ({"distill": {"weight": 0, "weight_end": 1, "schedule": "linear"}}, "values above 0"),
        ({"distill": {"weight": 1, "delay": 2}}, "set delay to 0"),
        ({"distill": {"weight": 1}, "steps": 4, "distill_share": 0.1}, "leaves one of the two parts without a step"),
        ({"distill": {"weight": 1}, "steps": 4, "distill_share": 0.9}, "leaves one of the two parts without a step"),
    ):
        with pytest.raises(ValueError, match=message):
            weights(schedule="distill_then_reward", **fields)


def test_the_terms_that_have_a_weight_are_the_whole_loss_one_by_one() -> None:
    assert TermWeights(2, 0.1).terms() == {"policy": TermWeights(2, 0), "distill": TermWeights(0, 0.1)}
    assert TermWeights(2, 0).terms() == {"policy": TermWeights(2, 0)}
    assert TermWeights(0, 0).terms() == {}
