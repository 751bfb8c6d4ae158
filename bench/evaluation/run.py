"""Problems x samples -> responses -> verdicts, in groups that a killed run takes up again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engines import Answer, Ask, Engine, Reply, Settings
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.log import Asked, Key, ResponseLog
from bench.evaluation.scoreboard import Scoreboard
from bench.evaluation.selection import Selection, choose
from bench.evaluation.shown import shown, turn
from bench.records import Problem, Response
from vold.config import Execution
from vold.files import MODEL_SUFFIXES, WEIGHTS, write_whole
from vold.seeding import derive
from vold.training.progress import Progress, silent


def evaluate(
    config: EvalConfig,
    *,
    model: Path,
    data: Mapping[str, Path],
    run: Path,
    seed: int,
    execution: Execution,
    progress: Progress = silent,
) -> None:
    """Ask a checkpoint every problem, score strictly, and write ``run/out``: responses, verdicts and summary.

    data: the place of each benchmark's records. While it works it appends ``run/responses.jsonl``; called again
    on the same ``run`` it continues there and ends with the same bytes. Raises DatasetError, ModelError (no
    checkpoint), ConfigurationError (nothing to score, or ``run`` belongs to another evaluation) and DiskFullError.
    """
    from bench.evaluation.tables import write_tables  # pandas is slow to import, and a plan only needs the config

    selections = choose(config, data)
    run.mkdir(parents=True, exist_ok=True)
    provenance: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "model": {"name": model.name, **_model(model)},
    }
    _claim(run, provenance)
    groups = [group for selection in selections for group in _groups(config, selection)]
    log = ResponseLog(
        run / "responses.jsonl",
        [_keys(config, group) for group in groups],
    )
    total = sum(len(group) for group in groups) * config.samples
    board = Scoreboard(problem for selection in selections for problem in selection.problems)
    for key, response in log.responses.items():
        board.add(Asked(key[0], response))
    progress(len(log.responses), total, board.metrics())
    if len(log.responses) < total:
        engine = _engine(config, model, execution)
        try:
            first = [selection.problems[0] for selection in selections]
            _write(run / "prompts.json", shown(engine, config, first))
            _write(run / "engine.json", engine.about())
            _fill(log, board, engine, config, groups, seed, progress)
            _write(run / "engine.json", engine.about())  # it may have had to change on the way
        finally:
            engine.close()
    for name in ("prompts", "engine"):
        provenance[name] = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
    write_tables(run / "out", selections, log.responses, board.verdicts, config.samples, provenance)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def _groups(config: EvalConfig, selection: Selection) -> list[Sequence[Problem]]:
    size = config.group_size
    return [selection.problems[start : start + size] for start in range(0, len(selection.problems), size)]


def _key(problem: Problem, sample: int) -> Key:
    return (problem.benchmark, problem.id, sample)


def _keys(config: EvalConfig, group: Sequence[Problem]) -> list[Key]:
    return [_key(problem, sample) for problem in group for sample in range(config.samples)]


def _engine(config: EvalConfig, model: Path, execution: Execution) -> Engine:
    from bench.engines.builtin import Builtin  # torch and transformers, only when something is to be answered

    return Builtin(model, execution, config.pixel_limits)


def _fill(
    log: ResponseLog,
    board: Scoreboard,
    engine: Engine,
    config: EvalConfig,
    groups: Sequence[Sequence[Problem]],
    seed: int,
    progress: Progress,
) -> None:
    """Ask for what ``log`` lacks and append it, a group at a time."""
    total = sum(map(len, groups)) * config.samples
    for group in groups:
        if log.has(_keys(config, group)):
            continue
        asks, answers = [], {}
        for place, problem in enumerate(group):
            seeds = tuple(derive(seed, "eval", *_key(problem, k)) for k in range(config.samples))
            try:
                asks.append(Ask(place, engine.preparer(turn(config, problem)), seeds))
            except ValueError as error:
                answers[place] = Answer(place, [Reply(str(error), 0, "error")] * config.samples)
        answers |= {answer.place: answer for answer in engine.answer([asks], _settings(config))}
        found = [
            Asked(problem.benchmark, response)
            for place, problem in enumerate(group)
            for response in _responses(problem, answers[place])
        ]
        log.add(found)
        for asked in found:
            board.add(asked)
        progress(len(log.responses), total, board.metrics())


def _settings(config: EvalConfig) -> Settings:
    return Settings(config.max_tokens, config.temperature)


def _responses(problem: Problem, answer: Answer) -> list[Response]:
    sizes = (answer.prompt_tokens, answer.visual_tokens)
    return [
        Response(problem.id, sample, reply.text, reply.tokens, reply.finish_reason, *sizes)
        for sample, reply in enumerate(answer.replies)
    ]


def _model(path: Path) -> dict[str, str]:
    """SHA-256 over the names and bytes of a checkpoint's weights and settings."""
    files = sorted(file for file in path.glob("*") if file.suffix in MODEL_SUFFIXES)
    if not any(file.suffix == WEIGHTS for file in files):
        raise ConfigurationError(f"{path}: no checkpoint (config.json and *.safetensors) lies there; check the path")
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(f"{file.name}\0{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return {"sha256": total.hexdigest()}


def _claim(run: Path, provenance: Mapping[str, Any]) -> None:
    """Mark a new run directory as this evaluation's; refuse one that is another's."""
    path, text = run / "evaluation.json", json.dumps(provenance, indent=1, sort_keys=True) + "\n"
    if not path.exists():
        write_whole(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise ConfigurationError(
            f"{run}: holds another evaluation (other settings, seed or model, see {path.name}); "
            "give this one a directory of its own"
        )
