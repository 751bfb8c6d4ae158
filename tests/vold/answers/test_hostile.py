"""Responses made to hang, crash or execute something. Each is judged within a second."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records import Prediction, Problem
from bench.scoring.official import PROCEDURES
from vold.answers import verify, worker

SECONDS = 1.0
assert worker.CPU_SECONDS < SECONDS
REFERENCES = ("7", r"\frac{1}{2}", "B", "A, C", "(3,-4)", r"5\sqrt{3}", "2:3", "69{degrees}")
KINDS: tuple[Callable[[random.Random], str], ...] = (
    lambda r: "^".join(str(r.randint(2, 99)) for _ in range(r.randint(2, 60))),
    lambda r: f"{r.randint(2, 9)}^{{{10 ** r.randint(3, 30)}}}",
    lambda r: r"\frac{" * r.randint(1, 3000) + "1" + "}{2}" * r.randint(0, 3000),
    lambda r: r"\sqrt{" * r.randint(1, 3000) + "2",
    lambda r: "{" * r.randint(1, 200_000),
    lambda r: "{" * r.randint(1, 50_000) + "}" * r.randint(1, 50_000),
    lambda r: "(" * r.randint(1, 50_000) + "1" + ")" * r.randint(1, 50_000),
    lambda r: r"\boxed{" * r.randint(1, 20_000) + "7" + "}" * r.randint(0, 20_000),
    lambda r: str(r.randint(0, 9)) * r.randint(1, 100_000),
    lambda r: f"{r.randint(100, 999_999)}!" + "!" * r.randint(0, 50),
    lambda r: r"\int_0^{" + str(r.randint(1, 99)) + r"} x^{x^{x}} dx",
    lambda r: r"\sum_{n=1}^{" + "9" * r.randint(1, 40) + r"} \frac{1}{n!}",
    lambda r: f"__import__('os').system('touch {r.randint(0, 9)}')",
    lambda r: "eval(compile('raise SystemExit', '', 'exec'))",
    lambda r: "</script><script>alert(1)</script>" * r.randint(1, 2000),
    lambda r: "".join(chr(r.randint(0, 0x9F)) for _ in range(r.randint(1, 5000))),
    lambda r: "".join(chr(r.randint(0x200, 0x2FFF)) for _ in range(r.randint(1, 5000))),
    lambda r: "\ud800" * r.randint(1, 100),
    lambda r: "answer is " * r.randint(1, 20_000),
    lambda r: "Answer: " + "A, " * r.randint(1, 20_000),
    lambda r: "1," * r.randint(1, 50_000) + "2",
    lambda r: "x+" * r.randint(1, 5000) + "1",
    lambda r: r"\text{" * r.randint(1, 5000) + "7" + "}" * r.randint(1, 5000),
    lambda r: "is " * r.randint(1, 50_000) + "7.",
    lambda r: "$" * r.randint(1, 50_000) + "7" + "$" * r.randint(1, 50_000),
    lambda r: f"{r.random()}e{r.randint(5, 10**6)}",
    lambda r: "=" * r.randint(1, 100_000),
    lambda r: "a" * r.randint(1_000_000, 3_000_000),
)
WRAPS = ("{}", r"\boxed{{{}}}", "Answer: {}", "The answer is {}.", "so ${}$\n", "Answer: A {}", r"\boxed{{{}")


def hostile(count: int) -> list[tuple[str, str]]:
    """Pairs of response and reference answer, the same each time."""
    source = random.Random(20260)
    return [
        (source.choice(WRAPS).format(KINDS[index % len(KINDS)](source)), source.choice(REFERENCES))
        for index in range(count)
    ]


@pytest.mark.slow
def test_ten_thousand_hostile_answers_neither_hang_nor_crash_nor_execute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slowest, slowest_response = 0.0, ""
    for response, reference in hostile(10_000):
        start = time.thread_time()
        outcome = verify(response, reference, ("3", "7", "x") if reference == "B" else ())
        spent = time.thread_time() - start  # CPU time, as the machine may be busy; the worker has its own limit
        assert outcome.state in ("right", "wrong", "unparsed", "ambiguous")
        slowest, slowest_response = max((slowest, slowest_response), (spent, response[:80]))
    assert slowest < SECONDS, slowest_response
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_published_procedures_withstand_hostile_answers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("3", "7", "x")
    for response, reference in hostile(len(KINDS) * len(WRAPS) * 3):
        for benchmark, judge in PROCEDURES.items():
            choice = benchmark == "mmmu_pro" or reference == "B"
            kind, answer = ("choice", "B") if choice else ("free", reference)
            problem = Problem(benchmark, "1", "", (), options if choice else (), answer, kind, "1")
            start = time.thread_time()
            ruling = judge(problem, Prediction("1", 0, response))
            assert ruling.outcome in ("right", "wrong", "unparsed")
            assert time.thread_time() - start < SECONDS, (benchmark, response[:80])
    assert list(tmp_path.iterdir()) == []
