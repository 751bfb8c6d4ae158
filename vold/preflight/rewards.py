"""Checks that the reward function works here and can read the data's reference answers."""

import string
from collections.abc import Sequence
from pathlib import Path

from vold import rewards
from vold.data.prompts import Prompt
from vold.data.sources import DataSource
from vold.findings import Finding, error, warning

# Reference answers that need the symbolic library take up to a second each.
SAMPLE = 200
_MANY = 0.1
# Marks that some data sets write around an answer. A response would have to repeat them.
_WRAPPERS = ("####", "<answer>", "\n")


def self_test_findings() -> list[Finding]:
    """Runs the reward function on known right and wrong answers."""
    try:
        rewards.self_test()
    except rewards.RewardError as exception:
        fix = "install the versions of constraints.txt; with these versions rewards are wrong"
        return [error("rewards.self_test", str(exception), "vold/rewards.py", fix)]
    return []


def reference_answer_findings(source: Path | DataSource, prompts: Sequence[Prompt]) -> list[Finding]:
    """Checks ``SAMPLE`` evenly spaced prompts for reference answers that no response can match."""
    sample = [prompt for prompt in prompts if prompt.answer.strip()][:: max(1, -(-len(prompts) // SAMPLE))]
    unread = [prompt for prompt in sample if not _readable(prompt)]
    if not unread:
        return []
    message = (
        f"no response could match {len(unread)} of {len(sample)} reference answers, "
        f"the first is {unread[0].answer[:60]!r} of prompt {unread[0].id!r}"
    )
    fix = "write a bare number, formula or option's letter (with `options`) as `answer`, or remove these prompts"
    level = error if len(unread) > _MANY * len(sample) else warning
    return [level("rewards.gold", message, source, fix)]


def _readable(prompt: Prompt) -> bool:
    """Whether the reference answer is bare, is one of the options (if there are any) and equals itself."""
    labels = string.ascii_uppercase[: len(prompt.options)]
    stray = prompt.options and len(prompt.answer) == 1 and prompt.answer.isalpha() and prompt.answer not in labels
    wrapped = any(mark in prompt.answer for mark in _WRAPPERS)
    return not stray and not wrapped and rewards.reward(rf"\boxed{{{prompt.answer}}}", prompt) > 0
