"""Problems x samples -> responses -> verdicts, in groups that a killed run takes up again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import benchmarks
from bench.engines import Answer, Ask, Engine, Reply, Settings
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.log import Asked, Key, ResponseLog
from bench.evaluation.selection import Selection, select
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

    selections = [_select(config, name, data[name]) for name in _names(config, data)]
    run.mkdir(parents=True, exist_ok=True)
    provenance = {
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
    progress(len(log.responses), total, {})
    if len(log.responses) < total:
        engine = _engine(config, model, execution)
        try:
            first = [selection.problems[0] for selection in selections]
            write_whole(run / "prompts.json", json.dumps(shown(engine, config, first), indent=1, sort_keys=True) + "\n")
            _fill(log, engine, config, groups, seed, progress)
        finally:
            engine.close()
    first_prompts = json.loads((run / "prompts.json").read_text(encoding="utf-8"))
    write_tables(run / "out", selections, log.responses, config.samples, {**provenance, "prompts": first_prompts})


def _names(config: EvalConfig, data: Mapping[str, Path]) -> list[str]:
    wanted = config.benchmarks if config.benchmarks is not None else tuple(data)
    if missing := [name for name in wanted if name not in data]:
        raise ConfigurationError(f"no data for {', '.join(missing)}; say where its records lie, or leave it out")
    if not wanted:
        raise ConfigurationError("nothing to evaluate; name at least one benchmark and its data")
    return sorted(wanted, key=list(benchmarks.BENCHMARKS).index)


def _select(config: EvalConfig, name: str, place: Path) -> Selection:
    dataset = benchmarks.read(name, place, config.splits.get(name), require_pictures=not config.blind)
    selection = select(dataset, config.limit, config.subset_seed)
    if not selection.problems:
        found = len(dataset.problems)
        raise ConfigurationError(
            f"{place}: none of the {found} {name} records of split {dataset.split!r} can be scored; "
            "give records with answers, or leave the benchmark out"
        )
    return selection


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
        log.add(
            Asked(problem.benchmark, response)
            for place, problem in enumerate(group)
            for response in _responses(problem, answers[place])
        )
        progress(len(log.responses), total, {})


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
