"""Refilling is a function of (seed, step, position), so that ranks need not communicate."""

from collections.abc import Sequence

import pytest
import torch

from vold.config import RLConfig
from vold.data.prompts import Prompt
from vold.distributed import Ranks
from vold.models import Student
from vold.rollout.builtin import BuiltinEngine
from vold.training import rollouts
from vold.training.journal import Stopwatch
from vold.training.rollouts import Collector, Rollouts

PROMPTS = [Prompt(f"p{i}", f"[{i}+1]solve", str(i % 10)) for i in range(20)]
CONFIG = RLConfig(prompts_per_step=5, group_size=3, max_new_tokens=6, max_refills=2)


def collect(student: Student, rank: int, world: int, step: int = 4) -> Rollouts:
    engine = BuiltinEngine(student, 64)
    return Collector(student, engine, PROMPTS, CONFIG, 1, Ranks(rank, world)).collect(step, Stopwatch())


def test_two_ranks_refill_like_one(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    def some_signal(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[float]:
        return [float(place % 3 == 0 and int(p.id[1:]) % 3 == 0) for place, p in enumerate(prompts)]

    monkeypatch.setattr(rollouts, "rewards", some_signal)
    single, *parts = (collect(student, rank, world) for rank, world in ((0, 1), (0, 2), (1, 2)))
    assert single.refills == sum(part.refills for part in parts) > 0
    assert single.discarded_tokens == sum(part.discarded_tokens for part in parts) > 0
    assert single.sequences == [sequence for part in parts for sequence in part.sequences]
    assert torch.equal(single.rewards, torch.cat([part.rewards for part in parts]))


def test_a_group_with_a_faulty_reward_is_not_replaced(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "rewards", lambda responses, prompts: [float("inf")] * len(responses))
    batch = collect(student, 0, 1)
    assert batch.refills == 0 and not batch.rewards.isfinite().any()
