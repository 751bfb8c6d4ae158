"""Arms in plain words."""

from typing import Any

from bench.matrix.spec import Arm
from bench.report.words import arm_in_words


def words(distill: dict[str, Any], **rl: Any) -> str:
    full = {"weight": 0.3, "estimator": "k2", "mask": "wrong", "placebo_probability": 0.1} | distill
    return arm_in_words(Arm("a"), {("a", "rl"): {"distill": full, "distill_share": 0.5} | rl})


def test_an_arm_is_named_by_its_schedule() -> None:
    assert words({}, schedule="joint").endswith("then GRPO + OPD (weight 0.3, k2 estimate, on wrong attempts)")
    parts = words({}, schedule="distill_then_reward")
    assert "then OPD for 50% of the steps and GRPO for the others (weight 0.3" in parts


def test_the_placebo_is_named_without_estimator_and_teacher() -> None:
    text = words({"target": "placebo"}, teacher="other_model")
    details = "weight 0.3, on tokens below a probability of 0.1, on wrong attempts"
    assert text.endswith(f"then GRPO + the placebo of OPD ({details})")
    assert "then the placebo of OPD without a reward" in words({"target": "placebo"}, reward_weight=0)
