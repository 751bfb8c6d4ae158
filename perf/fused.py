"""Memory and time of the fused head with and without the exact KL, and of the plain computation where it fits.

    python -m perf.fused memory --tokens 32768 --hidden 64
    python -m perf.fused time --tokens 1024 --hidden 2048 --teacher-hidden 4096

Memory: the peak of each form in a fresh process, without hidden states, weights and their gradients. Time: the shortest
forward and backward pass of each form, as a ratio to the first form; the forms take turns. ``none`` computes the
normalised log-probabilities of student and teacher, and no divergence.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perf.trial import memory_mb
from vold.objectives.distill import exact_divergence
from vold.objectives.fused import Head, TokenStats, head_loss

FORMS = ("none", "monitor", "reverse_kl", "forward_kl", "jsd", "topk", "plain_none", "plain_reverse_kl")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Hidden states [T, H] and heads [V, H] of student (with gradient) and teacher, and targets [T]."""

    hidden: Tensor
    weight: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor
    targets: Tensor

    @classmethod
    def random(cls, tokens: int, rows: int, hidden: int, teacher_hidden: int, frozen: bool) -> "Inputs":
        torch.manual_seed(0)
        return cls(
            torch.randn(tokens, hidden).requires_grad_(),
            torch.randn(rows, hidden).mul_(2 / hidden**0.5).requires_grad_(not frozen),
            torch.randn(tokens, teacher_hidden),
            torch.randn(rows, teacher_hidden).mul_(2 / teacher_hidden**0.5),
            torch.randint(rows, (tokens,)),
        )


def fused_loss(inputs: Inputs, form: str) -> float:
    """Loss and gradients through ``head_loss``: log-probabilities, and the divergence that ``form`` names."""
    divergence = exact_divergence(form, 64) if form not in ("none", "monitor") else None  # type: ignore[arg-type]

    def loss(stats: TokenStats, span: slice) -> Tensor:
        return -stats.logprobs if stats.divergence is None else stats.divergence - stats.logprobs

    value, _ = head_loss(
        inputs.hidden,
        Head(inputs.weight),
        inputs.targets,
        loss,
        teacher=(inputs.teacher_hidden, Head(inputs.teacher_weight)),
        divergence=divergence,
        kl=form != "none",
    )
    value.backward()
    return value.item()


def plain_loss(inputs: Inputs, form: str) -> float:
    """The same loss and gradients with full arrays of tokens x vocabulary and autograd."""
    rows = torch.arange(len(inputs.targets))
    student = (inputs.hidden @ inputs.weight.T).log_softmax(-1)
    with torch.no_grad():
        teacher = (inputs.teacher_hidden @ inputs.teacher_weight.T).log_softmax(-1)
        _ = teacher[rows, inputs.targets], -(student.exp() * student).sum(-1)
    value = -student[rows, inputs.targets].sum()
    if form == "plain_reverse_kl":
        value = value + (student.exp() * (student - teacher)).sum()
    value.backward()
    return value.item()


def run_form(inputs: Inputs, form: str) -> float:
    """One forward and backward pass; returns the loss."""
    inputs.hidden.grad = inputs.weight.grad = None
    return plain_loss(inputs, form) if form.startswith("plain") else fused_loss(inputs, form)


def extra_memory(inputs: Inputs, form: str) -> int:
    """Bytes of the peak beyond inputs and gradients. The peak is that of the whole process, so use a fresh one."""
    gradients = sum(t.numel() * t.element_size() for t in (inputs.hidden, inputs.weight) if t.requires_grad)
    before = memory_mb("VmRSS")
    run_form(inputs, form)
    return round((memory_mb("VmHWM") - before) * 1e6) - gradients


def least_seconds(inputs: Inputs, forms: Sequence[str], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """The shortest time of each form over ``repeats`` rounds, in which the forms take turns."""
    seconds: dict[str, float] = dict.fromkeys(forms, float("inf"))
    for _ in range(repeats):
        for form in forms:
            start = clock()
            run_form(inputs, form)
            seconds[form] = min(seconds[form], clock() - start)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("mode", choices=["memory", "time", "one"])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument(
        "--teacher-hidden", type=int, default=0, help="Hidden size of the teacher; 0 means that of the student."
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["none", "reverse_kl"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frozen-head", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    if args.mode == "memory":
        print(f"extra memory, {args.tokens} tokens x {args.rows} rows, hidden {args.hidden}")
        for form in args.forms:
            words = list(sys.argv[1:] if arguments is None else arguments)
            command = [sys.executable, "-m", "perf.fused", "one", *words[1:], "--forms", form]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"{form:18} {int(out) / 1e6:8.0f} MB", flush=True)
        return
    inputs = Inputs.random(args.tokens, args.rows, args.hidden, args.teacher_hidden or args.hidden, args.frozen_head)
    if args.mode == "one":
        print(extra_memory(inputs, args.forms[0]))
        return
    print(
        f"seconds, {args.tokens} tokens x {args.rows} rows, hidden {args.hidden} / {args.teacher_hidden or args.hidden}"
    )
    # Processor time, because other work may share the machine.
    seconds = least_seconds(inputs, args.forms, args.repeats, time.process_time)
    for form, value in seconds.items():
        print(f"{form:18} {value:8.2f} s   {value / seconds[args.forms[0]]:5.2f}", flush=True)


if __name__ == "__main__":
    main()
