"""One problem of an evaluation, whole: record, images, prompt, responses and what the scorer made of them."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import benchmarks
from bench.benchmarks.base import DatasetError, dataset_title
from bench.errors import ConfigurationError
from bench.evaluation.config import EvalConfig
from bench.evaluation.hashes import record_hashes
from bench.evaluation.problem_table import read_problems
from bench.evaluation.prompt_record import turn
from bench.hints import nearest
from bench.prompts import PromptPart
from bench.records import Problem
from bench.review.judged import judgements
from bench.review.results import EvaluationResult


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of the record; width and height in pixels are 0 where it cannot be read."""

    path: Path
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Shown:
    """``parts`` are the turn as asked; ``rendered`` is the chat as the model reads it, "" where its tokenizer is not at
    hand. ``samples``: response and verdict of each sample; ``judged``: what judges read in those that the rules could
    not. ``absent`` says what is not on this machine."""

    benchmark: str
    dataset: str
    synthetic: bool
    id: str
    problem: Problem
    images: tuple[ShownImage, ...]
    parts: tuple[PromptPart, ...]
    rendered: str
    samples: tuple[dict[str, Any], ...]
    judged: tuple[dict[str, Any], ...]
    absent: str = ""

    @property
    def title(self) -> str:
        return dataset_title(self.dataset, self.synthetic)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def lookup(result: EvaluationResult, id: str, benchmark: str | None = None) -> list[Shown]:
    """``id`` in every benchmark of ``result`` that asked it, or in one, named by itself or by its data set.

    Raises ConfigurationError where none did.
    """
    verdicts = result.verdicts
    parts = result.summary.benchmarks
    names = {name: name for name in parts} | {part.dataset: name for name, part in parts.items()}
    if benchmark is not None and benchmark not in names:
        shown = [part.dataset for part in parts.values()]
        raise ConfigurationError(f"--benchmark {benchmark}: not in {result.id}; {nearest(benchmark, shown)}")
    asked = verdicts if benchmark is None else verdicts[verdicts["benchmark"] == names[benchmark]]
    own = asked[asked["id"] == id]
    if own.empty:
        raise ConfigurationError(f"{id}: not answered in {result.label}; {nearest(id, set(asked['id']))}")
    rows = own.merge(result.responses[["benchmark", "id", "sample", "text"]], on=["benchmark", "id", "sample"])
    groups: Any = rows.groupby("benchmark")
    return [_shown(result, str(name), id, group.to_dict("records")) for name, group in groups]


def _shown(result: EvaluationResult, benchmark: str, id: str, samples: list[dict[str, Any]]) -> Shown:
    """The record is the result's own; only its images are looked for where the evaluation read them."""
    config, about = EvalConfig.model_validate(result.summary.config), result.summary.benchmarks[benchmark]
    problem = next(p for p in read_problems(result.path) if (p.benchmark, p.id) == (benchmark, id))
    split = None if about.synthetic else about.split  # a generated set has only one
    paths, absent = _images(result, problem, split, samples[0]["record"])
    problem = replace(problem, images=paths)
    parts = turn(config, problem)
    rendered = _recorded(result, benchmark, id) or ("" if absent else _rendered(result, config, parts))
    images = tuple(map(_shown_image, problem.images))
    judged = tuple(judgements(result, benchmark, id))
    return Shown(
        benchmark, about.dataset, about.synthetic, id, problem, images, tuple(parts), rendered, tuple(samples), judged,
        absent,
    )  # fmt: skip


def _images(result: EvaluationResult, problem: Problem, split: str | None, record: str) -> tuple[tuple[Path, ...], str]:
    """The images of ``problem`` where they lie now, or its own bare names and why they are not at hand.

    record: the hash of the record and its images when they were asked.
    """
    place = result.locations().get(f"data.{problem.benchmark}")
    if place is None or not place.exists():
        return problem.images, "the images are not where the evaluation read them"
    try:
        dataset = benchmarks.read_benchmark(problem.benchmark, place, split, require_images=False)
    except DatasetError as error:
        return problem.images, f"the data cannot be read any more: {error}"
    found = next((p for p in dataset.problems if p.id == problem.id), None)
    if found is None or record_hashes([found])[found.id] != record:
        return problem.images, f"{place} has another record or image of that id now; what was asked is shown"
    return found.images, ""


def _shown_image(path: Path) -> ShownImage:
    from PIL import Image

    try:
        size = path.stat().st_size
        with Image.open(path) as opened:
            return ShownImage(path, *opened.size, size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ShownImage(path, 0, 0, 0)


def _recorded(result: EvaluationResult, benchmark: str, id: str) -> str:
    """The rendered prompt where the result itself holds it: that of the benchmark's first problem."""
    prompt = result.summary.benchmarks[benchmark].prompt
    return (prompt.rendered or "") if prompt.id == id else ""


def _rendered(result: EvaluationResult, config: EvalConfig, parts: list[PromptPart]) -> str:
    model = result.locations().get("model")
    if model is None or not (model / "tokenizer_config.json").is_file():
        return ""
    from bench.engines.encoding import EncodingPreparer  # torch and transformers

    try:
        reading = EncodingPreparer(model, config.pixel_limits, config.thinking).read_prompt(parts)
    except (OSError, ValueError):
        return ""
    return "" if reading is None else reading.text
