"""Prompts and traces for the tiny student."""

from pathlib import Path

import pytest

from vold.data.prompts import Prompt, Trace, write_jsonl
from vold.training import rl


@pytest.fixture(autouse=True)
def _no_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the self-test, which starts a process. tests/vold/test_rewards.py tests it."""
    monkeypatch.setattr(rl, "self_test", lambda: None)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "prompts.jsonl", [Prompt(f"p{i}", f"[{i}+1]solve", str(i % 10)) for i in range(20)])
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    rows = [Trace(f"t{i}", f"[{i}+1]solve", f"{i}+1={i + 1}.\\boxed{{{i + 1}}}", True) for i in range(20)]
    write_jsonl(tmp_path / "traces.jsonl", rows)
    return tmp_path / "traces.jsonl"
