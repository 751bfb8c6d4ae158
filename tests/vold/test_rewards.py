"""Rewards are the verdicts of ``vold.answers``, and their self-test detects a broken verifier."""

import pytest

from vold import rewards
from vold.answers import AnswerOutcome
from vold.data.prompts import Prompt
from vold.rewards import RewardError, reward, self_test


def test_the_self_test_passes_on_the_real_verifier() -> None:
    self_test()


@pytest.mark.parametrize("state", ["right", "wrong"])
def test_a_verifier_with_a_constant_verdict_fails_the_self_test(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "verify", lambda *arguments: AnswerOutcome(state))  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="reward self-test"):
        self_test()


def test_a_reward_is_one_for_a_right_answer_and_zero_for_anything_else() -> None:
    prompt = Prompt("1", "[7+5-3*2]solve", "8")
    assert [reward(text, prompt) for text in (r"\boxed{8}", r"\boxed{9}", "", "\x00" * 50, r"\boxed{" * 99)] == [
        1.0, 0.0, 0.0, 0.0, 0.0,
    ]  # fmt: skip


def test_options_are_compared_by_label() -> None:
    prompt = Prompt("1", "which?", "B", ("3", "4"))
    assert reward(r"\boxed{B}", prompt) == 1.0
    assert reward(r"\boxed{A}", prompt) == 0.0
