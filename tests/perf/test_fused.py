"""The program that measures the fused head: both forms compute the same loss with different memory."""

import re

import pytest
import torch

from perf.fused import Inputs, main, run_form


@pytest.mark.parametrize(("form", "plain"), [("none", "plain_none"), ("reverse_kl", "plain_reverse_kl")])
def test_fused_and_plain_forms_are_the_same_computation(form: str, plain: str) -> None:
    inputs = Inputs.random(tokens=50, rows=300, hidden=16, teacher_hidden=24, frozen=False)
    results = []
    for name in (form, plain):
        loss = run_form(inputs, name)
        assert inputs.hidden.grad is not None and inputs.weight.grad is not None
        results.append((torch.tensor(loss), inputs.hidden.grad.clone(), inputs.weight.grad.clone()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_exact_kl_needs_memory_for_a_few_chunks_and_not_for_all_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    size = ["--tokens", "4096", "--rows", "20000", "--hidden", "16", "--threads", "1"]
    main(["memory", *size, "--forms", "reverse_kl"])
    (used,) = map(int, re.findall(r"(\d+) MB", capsys.readouterr().out))
    one_array = 4096 * 20_000 * 4 / 1e6  # autograd would keep at least four
    assert used < 2.1 * one_array


def test_the_times_are_ratios_to_the_first_form(capsys: pytest.CaptureFixture[str]) -> None:
    main(["time", "--tokens", "8", "--rows", "50", "--repeats", "1", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["none", "reverse_kl"]
    assert float(lines[0].split()[-1]) == 1.0
