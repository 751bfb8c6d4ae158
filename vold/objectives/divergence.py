"""Divergences between the student's next-token distribution p and the teacher's q, with their derivatives.

Each function takes log p, log q and p at n positions, all [n, V], and returns (value [n], slope [n, V]). The slope is
the derivative with respect to the student's logits: p_v (a_v - sum_u p_u a_u), where a_v = d value / d p_v. To save
memory, the functions overwrite their arguments.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Divergence = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def expectation(weights: Tensor, values: Tensor) -> Tensor:
    """Row-wise sum [n] of weights * values, both [n, V], without an array of the products.

    It is never computed in half precision.
    """
    with torch.autocast(weights.device.type, enabled=False):
        return torch.bmm(weights[:, None, :], values[:, :, None])[:, 0, 0]


def reverse_kl(student: Tensor, teacher: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """KL(student || teacher)."""
    log_ratio = student.sub_(teacher)
    value = expectation(p, log_ratio)
    return value, log_ratio.sub_(value[:, None]).mul_(p)


def forward_kl(student: Tensor, teacher: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student)."""
    log_ratio = student.neg_().add_(teacher)
    q = teacher.exp_()
    return expectation(q, log_ratio), torch.sub(p, q, out=log_ratio)


def jsd(student: Tensor, teacher: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Jensen-Shannon divergence: the mean of KL(p || m) and KL(q || m) with m = (p + q) / 2. At most log 2."""
    mixture = torch.logaddexp(student, teacher).sub_(math.log(2))
    log_ratio = student.sub_(mixture)
    of_student = expectation(p, log_ratio)
    of_teacher = mixture.neg_().add_(teacher)
    value = 0.5 * (of_student + expectation(teacher.exp_(), of_teacher))
    return value, log_ratio.sub_(of_student[:, None]).mul_(p).mul_(0.5)


def topk_reverse_kl(student: Tensor, teacher: Tensor, p: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """KL(student || teacher) over the teacher's ``k`` likeliest tokens and one bucket for all others.

    It is a lower bound of the full KL. The bucket makes it a KL of two distributions, which is 0 only if all k + 1
    masses agree. Without the bucket, the sum would have its minimum below zero, at p = q / e.
    """
    likeliest, ids = teacher.topk(min(k, teacher.shape[1]), dim=1)
    mass = p.gather(1, ids)
    log_ratio = student.gather(1, ids).sub_(likeliest)
    # Both tails are sums: as differences from 1, small tails would be lost to rounding.
    tail = _log_sum(p.scatter_(1, ids, 0.0))
    tail_ratio = tail - _log_sum(teacher.exp_().scatter_(1, ids, 0.0))
    p.scatter_(1, ids, mass)
    value = expectation(mass, log_ratio) + tail.exp() * tail_ratio
    slope = torch.mul(p, (tail_ratio - value)[:, None], out=student)
    return value, slope.scatter_(1, ids, mass * (log_ratio - value[:, None]))


def _log_sum(masses: Tensor) -> Tensor:
    # An empty tail has mass 0 on both sides. The tiny lower bound makes its share 0 and not NaN.
    return masses.sum(dim=1).clamp_(min=torch.finfo(masses.dtype).tiny).log_()
