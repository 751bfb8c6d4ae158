"""Problems x samples -> responses -> verdicts, in groups that a killed run takes up again."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench import benchmarks, prompts
from bench.engines import Engine, Prompt, Reply, Settings
from bench.errors import ConfigurationError
from bench.records import Problem, Response
from bench.responses import Asked, Key, ResponseLog
from bench.selection import Selection, select
from vold.config import Execution, Strict
from vold.files import MODEL_SUFFIXES, WEIGHTS, write_whole
from vold.seeding import derive
from vold.training.progress import Progress, silent


class EvalConfig(Strict):
    """What is asked and how it is sampled; enters the identity of an evaluation."""

    benchmarks: tuple[str, ...] | None = Field(default=None, description="None: every benchmark that has data")
    splits: dict[str, str] = Field(default_factory=dict, description="benchmark to split, where not the default")
    limit: int | None = Field(default=None, ge=1, description="items a benchmark: the first of a seeded shuffle")
    subset_seed: int = Field(default=0, description="seed of that shuffle; the same items for every arm and seed")
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=2048, ge=1)
    template: str = "plain@1"
    min_pixels: int | None = Field(default=None, ge=1, description="of one picture after resizing; None: the model's")
    max_pixels: int | None = Field(default=None, ge=1)
    blind: bool = Field(default=False, description="leave the pictures out")
    group_size: int = Field(default=64, ge=1, description="items answered together and logged as one")
    engine: Literal["builtin"] = "builtin"

    @model_validator(mode="after")
    def _is_consistent(self) -> "EvalConfig":
        prompts.template(self.template)
        for name in (*(self.benchmarks or ()), *self.splits):
            if name not in benchmarks.BENCHMARKS:
                raise ValueError(f"unknown benchmark {name!r}; choose from {', '.join(benchmarks.BENCHMARKS)}")
        if (self.min_pixels is None) != (self.max_pixels is None):
            raise ValueError("min_pixels and max_pixels are set together or not at all")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are all the same; set a temperature or samples: 1")
        return self

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        if self.min_pixels is None or self.max_pixels is None:
            return None
        return self.min_pixels, self.max_pixels


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
    from bench.verdicts import write_tables  # pandas is slow to import, and a plan only needs the config

    selections = [_select(config, name, data[name]) for name in _names(config, data)]
    run.mkdir(parents=True, exist_ok=True)
    provenance = {
        "config": config.model_dump(mode="json"),
        "seed": seed,
        "model": {"name": model.name, **_model(model)},
    }
    _claim(run, provenance)
    groups = [group for selection in selections for group in _groups(config, selection)]
    keys = [[_key(problem, sample) for problem in group for sample in range(config.samples)] for group in groups]
    log = ResponseLog(run / "responses.jsonl", keys)
    total = sum(map(len, keys))
    progress(len(log.responses), total, {})
    if not all(map(log.has, keys)):
        engine = _engine(config, model, execution)
        _record_prompts(run / "prompts.json", engine, config, selections)
        for group, wanted in zip(groups, keys, strict=True):
            if not log.has(wanted):
                start = time.perf_counter()
                asked = _ask(engine, config, group, seed)
                log.add(asked)
                tokens = sum(item.response.tokens for item in asked)
                _append_timing(run / "timing.jsonl", len(asked), tokens, time.perf_counter() - start)
                progress(len(log.responses), total, {"tokens": float(tokens)})
    shown = json.loads((run / "prompts.json").read_text(encoding="utf-8"))
    write_tables(run / "out", selections, log.responses, config.samples, {**provenance, "prompts": shown})


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


def _engine(config: EvalConfig, model: Path, execution: Execution) -> Engine:
    from bench.engines.builtin import Builtin  # torch and transformers, only when something is to be answered

    return Builtin(model, execution, config.pixel_limits)


def _prompt(config: EvalConfig, problem: Problem, seeds: tuple[int, ...]) -> Prompt:
    return Prompt(prompts.render(problem, config.template, blind=config.blind), seeds)


def _ask(engine: Engine, config: EvalConfig, group: Sequence[Problem], seed: int) -> list[Asked]:
    asked = [
        _prompt(config, problem, tuple(derive(seed, "eval", *_key(problem, k)) for k in range(config.samples)))
        for problem in group
    ]
    replies = engine.answer(asked, Settings(config.max_tokens, config.temperature))
    return [
        Asked(problem.benchmark, _response(problem, sample, reply))
        for problem, samples in zip(group, replies, strict=True)
        for sample, reply in enumerate(samples)
    ]


def _response(problem: Problem, sample: int, reply: Reply) -> Response:
    return Response(problem.id, sample, reply.text, reply.tokens, reply.finish_reason)


def _record_prompts(path: Path, engine: Engine, config: EvalConfig, selections: Sequence[Selection]) -> None:
    """The first prompt of each benchmark as the model reads it, with its hashes."""
    shown = {}
    for selection in selections:
        problem = selection.problems[0]
        prompt = _prompt(config, problem, ())
        ids = engine.token_ids(prompt)
        shown[problem.benchmark] = {
            "id": problem.id,
            "parts": [{**part, "path": Path(part["path"]).name} if "path" in part else part for part in prompt.parts],
            "sha256": prompts.prompt_hash(prompt.parts),
            "tokens": len(ids),
            "token_ids_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        }
    write_whole(path, json.dumps(shown, indent=1, sort_keys=True) + "\n")


def _append_timing(path: Path, responses: int, tokens: int, seconds: float) -> None:
    row = {"responses": responses, "tokens": tokens, "seconds": round(seconds, 6)}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


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
