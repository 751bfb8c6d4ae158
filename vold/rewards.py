r"""Verifiable rewards: 1 for a right answer, 0 for anything else.

Equality is ``vold.answers``'s, the one that benchmarks use: plain numbers and labels are compared in process,
what needs a symbolic library goes to its killable worker with limits on time and memory.
"""

from collections.abc import Sequence

from vold.answers import verify
from vold.data.prompts import Prompt


class RewardError(RuntimeError):
    """The reward function fails its self-test, so training on it would be training on noise."""


# (response, gold, options, right?): one of each kind of answer, and the ways of being wrong.
_KNOWN: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
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
    """Judge known right and wrong answers; raises RewardError naming the first that comes out otherwise."""
    for response, answer, options, right in _KNOWN:
        if verify(response, answer, options).correct != right:
            raise RewardError(
                f"reward self-test: {response!r} against {answer!r} should be {'right' if right else 'wrong'}; "
                "is math-verify installed in the pinned version?"
            )


def reward(response: str, prompt: Prompt) -> float:
    """1.0 when ``response`` declares the prompt's answer, else 0.0."""
    return float(verify(response, prompt.answer, prompt.options).correct)


def rewards(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
    """The reward of each response to the prompt at its place."""
    return [reward(response, prompt) for response, prompt in zip(responses, prompts, strict=True)]
