"""The first prompt of each benchmark, which every result records."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from bench.engines import Engine
from bench.evaluation.config import EvalConfig
from bench.evaluation.selection import Selection
from bench.prompts import PromptPart, prompt_hash, render
from bench.records import Problem
from bench.summary import FirstPrompt


def turn(config: EvalConfig, problem: Problem) -> list[PromptPart]:
    """The user's turn that asks ``problem``."""
    return render(problem, config.template, blind=config.blind)


def first_prompts(engine: Engine, config: EvalConfig, selections: Sequence[Selection]) -> dict[str, FirstPrompt]:
    """The prompt of each benchmark's first problem, by benchmark."""
    first = (selection.problems[0] for selection in selections)
    return {problem.benchmark: _first_prompt(engine, config, problem) for problem in first}


def _first_prompt(engine: Engine, config: EvalConfig, problem: Problem) -> FirstPrompt:
    parts = turn(config, problem)
    reading = engine.read_prompt(parts)
    prompt = FirstPrompt(
        id=problem.id,
        template=config.template,
        parts=[{**part, "path": part["path"].rpartition("/")[2]} if "path" in part else {**part} for part in parts],
        sha256=prompt_hash(parts),
    )
    if reading is None:
        return prompt
    return replace(
        prompt,
        rendered=reading.text,
        tokens=len(reading.prompt_ids),
        token_ids_sha256=token_hash(reading.prompt_ids),
        image_grids=[list(grid) for grid in reading.grids],
        visual_tokens=list(reading.visual_tokens),
    )


def token_hash(ids: Sequence[int]) -> str:
    """SHA-256 of the ids as a JSON list."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()
