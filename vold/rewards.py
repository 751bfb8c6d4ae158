r"""Verifiable rewards: 1 for a right answer, 0 for anything else.

``vold.answers`` decides what is right, as it does for benchmarks. Plain numbers and labels are compared in this
process. Answers that need a symbolic library go to a worker with limits on time and memory.
"""

from collections.abc import Sequence

from vold.answers import verify
from vold.data.prompts import Prompt


class RewardError(RuntimeError):
    """The reward function gives a wrong verdict in its self-test. Training on its rewards would be meaningless."""


# (response, reference answer, options, whether it is right): each kind of answer, and ways of being wrong.
_CASES: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    (r"7+5=2,2-3=9.\boxed{9}", "9", (), True),
    (r"so the result is \boxed{8}.", "9", (), False),
    (r"\boxed{0.5}", r"\frac{1}{2}", (), True),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", (), True),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{13}", (), False),
    (r"\boxed{B}", "B", ("3", "4"), True),
    (r"\boxed{A}", "B", ("3", "4"), False),
    ("9 might be a candidate, and so might 3", "9", (), False),
    ("", "9", (), False),
)


def self_test() -> None:
    """Check the verdicts on answers known to be right or wrong. Raises RewardError naming the first wrong verdict."""
    for response, answer, options, right in _CASES:
        if verify(response, answer, options).correct != right:
            raise RewardError(
                f"reward self-test: {response!r} should be {'right' if right else 'wrong'} for the reference answer "
                f"{answer!r}; install the version of math-verify that constraints.txt pins"
            )


def reward(response: str, prompt: Prompt) -> float:
    """1.0 if the answer in ``response`` is the prompt's reference answer, otherwise 0.0."""
    return float(verify(response, prompt.answer, prompt.options).correct)


def rewards(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """The reward of each response to the prompt of the same index."""
    return [reward(response, prompt) for response, prompt in zip(responses, prompts, strict=True)]
