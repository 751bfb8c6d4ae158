"""What a benchmark's first prompt looks like to the model: the record that every result carries."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from bench.engines import Engine, PromptReading
from bench.evaluation.config import EvalConfig
from bench.prompts import PromptPart, prompt_hash, render
from bench.records import Problem


def turn(config: EvalConfig, problem: Problem) -> list[PromptPart]:
    """The user's turn in which ``problem`` is asked."""
    return render(problem, config.template, blind=config.blind)


def shown(engine: Engine, config: EvalConfig, first: Iterable[Problem]) -> dict[str, Any]:
    """By benchmark: the turn of its ``first`` problem, hashes, and how the engine reads it (where it can tell)."""
    return {problem.benchmark: _record(engine, config, problem) for problem in first}


def _record(engine: Engine, config: EvalConfig, problem: Problem) -> dict[str, Any]:
    parts = turn(config, problem)
    reading = engine.read_prompt(parts)
    return {
        "id": problem.id,
        "template": config.template,
        "parts": [{**part, "path": part["path"].rpartition("/")[2]} if "path" in part else part for part in parts],
        "sha256": prompt_hash(parts),
        **({} if reading is None else _as_read(reading)),
    }


def _as_read(reading: PromptReading) -> dict[str, Any]:
    return {
        "rendered": reading.text,
        "tokens": len(reading.prompt_ids),
        "token_ids_sha256": token_hash(reading.prompt_ids),
        "image_grids": reading.grids,
        "visual_tokens": reading.visual_tokens,
    }


def token_hash(ids: Sequence[int]) -> str:
    """SHA-256 of the ids as a JSON list."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()
