"""The expected gradient and the variance of every estimator of the teacher term, by exact enumeration.

    python -m perf.estimators

At one position with known logits, the expectation over the sampled token is a sum over the vocabulary. So the mean and
the variance of an estimator's gradient with respect to the student's logits are exact up to rounding in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vold.config import Estimator
from vold.objectives.batch import TokenBatch
from vold.objectives.distill import FOLLOWS, exact_divergence, teacher_term

VOCABULARY = 64
TOP_K = 8
TOLERANCE = 1e-6
Target = Callable[[Tensor, Tensor], Tensor]
"""From log-probabilities of student (with gradient) and teacher [V] to the divergence that an estimator follows."""


def reverse(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.exp() * (student - teacher)).sum()


def forward(student: Tensor, teacher: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum()


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    mixture = ((student.exp() + teacher.exp()) / 2).log()
    return (reverse(student, mixture) + reverse(teacher, mixture)) / 2


def bucketed(student: Tensor, teacher: Tensor) -> Tensor:
    """Reverse KL over the TOP_K likeliest tokens of the teacher and one bucket for the rest."""
    order = teacher.argsort(descending=True)
    masses = (torch.cat([p[order[:TOP_K]], p[order[TOP_K:]].sum()[None]]).log() for p in (student.exp(), teacher.exp()))
    return reverse(*masses)


DIVERGENCES: dict[str, tuple[str, Target]] = {
    "reverse_kl": ("KL(student, teacher)", reverse),
    "forward_kl": ("KL(teacher, student)", forward),
    "jsd": ("Jensen-Shannon", jensen_shannon),
    "topk": (f"KL(student, teacher), {TOP_K} tokens + rest", bucketed),
}
TARGETS: dict[Estimator, tuple[str, Target]] = {name: DIVERGENCES[divergence] for name, divergence in FOLLOWS.items()}


@dataclass(frozen=True, slots=True)
class LogitPair:
    """Logits of student and teacher at one position, float64 [V]."""

    student: Tensor
    teacher: Tensor

    @classmethod
    def at_distance(cls, distance: float, seed: int, spread: float = 3.0) -> "LogitPair":
        """A student with a few likely tokens, and a teacher at a random offset from it."""
        random = torch.Generator().manual_seed(seed)
        student, moved = (torch.randn(VOCABULARY, dtype=torch.float64, generator=random) for _ in range(2))
        return cls(spread * student, spread * student + distance * moved)


@dataclass(frozen=True, slots=True)
class ExactGradient:
    """The gradient of one estimator at one position.

    mean: its expectation [V]. target: the gradient of the divergence that it follows [V].
    variance: E|g - E g|^2 over the sampled token.
    """

    mean: Tensor
    target: Tensor
    variance: float

    @property
    def error(self) -> float:
        return float((self.mean - self.target).norm() / self.target.norm())


def exact_gradient(estimator: Estimator, pair: LogitPair) -> ExactGradient:
    """The gradients of all tokens through ``teacher_term``, weighted by their probability under the student."""
    logits = pair.student.clone().requires_grad_()
    student, teacher = logits.log_softmax(0), pair.teacher.log_softmax(0)
    ones = torch.ones_like(teacher)
    batch = TokenBatch(
        logprobs=student,
        old_logprobs=student.detach(),
        advantages=ones,
        rewards=ones,
        teacher_logprobs=teacher,
        kl=reverse(student.detach(), teacher) * ones,
        divergence=_attached(estimator, logits, teacher),
    )
    losses = teacher_term(batch, estimator, "all")
    every = torch.eye(len(losses), dtype=losses.dtype)
    (gradients,) = torch.autograd.grad(losses, logits, every, retain_graph=True, is_grads_batched=True)
    p = student.detach().exp()
    mean = p @ gradients
    target = torch.autograd.grad(TARGETS[estimator][1](logits.log_softmax(0), teacher), logits)[0]
    return ExactGradient(mean, target, float(p @ (gradients - mean).square().sum(dim=1)))


def _attached(estimator: Estimator, logits: Tensor, teacher: Tensor) -> Tensor | None:
    """The exact divergence at every token [V], with the slope of the fused head; None for other estimators."""
    divergence = exact_divergence(estimator, TOP_K)
    if divergence is None:
        return None
    student = logits.detach().log_softmax(0)
    value, slope = divergence(student[None].clone(), teacher[None].clone(), student.exp()[None])
    return (value.item() + (slope[0] * (logits - logits.detach())).sum()).expand(VOCABULARY)


DISTANCES = {"near": 0.1, "apart": 1.0, "far": 3.0}


def variance_table(seeds: int = 20) -> str:
    """A Markdown table of each estimator's target and its variance relative to ``k1_advantage``, means over ``seeds``.

    Raises ValueError when an expected gradient is not that of its target.
    """
    pairs = {name: [LogitPair.at_distance(d, seed) for seed in range(seeds)] for name, d in DISTANCES.items()}
    gradients = {e: {name: [exact_gradient(e, pair) for pair in of] for name, of in pairs.items()} for e in TARGETS}
    kl = {
        name: sum(float(reverse(p.student.log_softmax(0), p.teacher.log_softmax(0))) for p in of) / seeds
        for name, of in pairs.items()
    }
    heads = " | ".join(f"{name}, KL {kl[name]:.2g}" for name in DISTANCES)
    lines = [f"| estimator | gradient of | {heads} |", "|---|---|" + "---|" * len(DISTANCES)]
    for estimator, (target, _) in TARGETS.items():
        if max(item.error for items in gradients[estimator].values() for item in items) > TOLERANCE:
            raise ValueError(f"{estimator} does not have the gradient of {target}")
        cells = []
        for name in DISTANCES:
            own, base = (sum(item.variance for item in gradients[e][name]) for e in (estimator, "k1_advantage"))
            cells.append("0" if own / base < 1e-12 else f"{own / base:.3g}")
        lines.append(f"| `{estimator}` | {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(variance_table())
