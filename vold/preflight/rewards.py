"""Does the reward function work here, and can it read the data's golds?"""

import string
from collections.abc import Sequence
from pathlib import Path

from vold import rewards
from vold.data.prompts import Prompt
from vold.data.sources import DataSource
from vold.findings import Finding, error, warning

# Golds that need the symbolic library take up to a second each.
SAMPLE = 200
_MANY = 0.1
# What data sets write around an answer: a response would have to repeat it.
_WRAPPERS = ("####", "<answer>", "\n")


def self_test_findings() -> list[Finding]:
    """Known right and wrong answers."""
    try:
        rewards.self_test()
    except rewards.RewardError as exception:
        fix = "install the versions of constraints.txt; until then every reward is noise"
        return [error("rewards.self_test", str(exception), "vold/rewards.py", fix)]
    return []


def reference_answer_findings(source: Path | DataSource, prompts: Sequence[Prompt]) -> list[Finding]:
    """Can a response be right at all?  Looks at ``SAMPLE`` prompts at even distances."""
    asked = [prompt for prompt in prompts if prompt.answer.strip()][:: max(1, -(-len(prompts) // SAMPLE))]
    unread = [prompt for prompt in asked if not _readable(prompt)]
    if not unread:
        return []
    message = (
        f"answers that could never be given right: {len(unread)} of {len(asked)}, "
        f"the first is {unread[0].answer[:60]!r} of {unread[0].id!r}"
    )
    fix = "write bare golds: a number, a formula or an option's letter (with `options`), or remove these prompts"
    make = error if len(unread) > _MANY * len(asked) else warning
    return [make("rewards.gold", message, source, fix)]


def _readable(prompt: Prompt) -> bool:
    """Bare, among the options where there are some, and equal to itself."""
    labels = string.ascii_uppercase[: len(prompt.options)]
    stray = prompt.options and len(prompt.answer) == 1 and prompt.answer.isalpha() and prompt.answer not in labels
    wrapped = any(mark in prompt.answer for mark in _WRAPPERS)
    return not stray and not wrapped and rewards.reward(rf"\boxed{{{prompt.answer}}}", prompt) > 0
