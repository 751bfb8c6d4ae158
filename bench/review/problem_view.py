"""One problem of an evaluation: its record, images, prompt, responses and verdicts."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.benchmarks import registry
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
    """An image of the record. width and height are in pixels, and 0 if the file cannot be read."""

    path: Path
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """A problem with everything that an evaluation recorded about it.

    images: their sizes are 0 if they are not on this machine.
    parts: the user's turn.
    rendered: the chat as the model reads it, or empty if its tokenizer is not on this machine.
    samples: response and verdict of each sample.
    judged: verdicts of judges on unparsed samples, as ``judgements`` gives them.
    absent: why the images are not available, or empty.
    """

    benchmark: str
    dataset: str
    synthetic: bool
    id: str
    problem: Problem
    images: tuple[ShownImage, ...]
    parts: tuple[PromptPart, ...]
    rendered: str
    samples: tuple[dict[str, Any], ...]
    judged: tuple[dict[str, object], ...]
    absent: str = ""

    @property
    def title(self) -> str:
        return dataset_title(self.dataset, self.synthetic)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def find_problem(result: EvaluationResult, id: str, benchmark: str | None = None) -> list[ShownProblem]:
    """The problem ``id`` in every benchmark of ``result`` that has a response to it.

    benchmark: only this benchmark or data set. Raises ConfigurationError if there is no response.
    """
    verdicts = result.verdicts
    parts = result.summary.benchmarks
    names = {name: name for name in parts} | {part.dataset: name for name, part in parts.items()}
    if benchmark is not None and benchmark not in names:
        datasets = [part.dataset for part in parts.values()]
        raise ConfigurationError(f"--benchmark {benchmark}: not in {result.id}; {nearest(benchmark, datasets)}")
    if benchmark is not None:
        verdicts = verdicts[verdicts["benchmark"] == names[benchmark]]
    matches = verdicts[verdicts["id"] == id]
    if matches.empty:
        raise ConfigurationError(f"{id}: not answered in {result.label}; {nearest(id, set(verdicts['id']))}")
    rows = matches.merge(result.responses[["benchmark", "id", "sample", "text"]], on=["benchmark", "id", "sample"])
    groups = rows.groupby("benchmark")
    return [_shown(result, str(name), id, group.to_dict("records")) for name, group in groups]


def _shown(result: EvaluationResult, benchmark: str, id: str, samples: list[dict[str, Any]]) -> ShownProblem:
    """The record comes from the result; its images are read where the evaluation read them."""
    config, part = EvalConfig.model_validate(result.summary.config), result.summary.benchmarks[benchmark]
    problem = next(p for p in read_problems(result.path) if (p.benchmark, p.id) == (benchmark, id))
    split = None if part.synthetic else part.split  # a generated data set has only one
    paths, absent = _images(result, problem, split, samples[0]["record"])
    problem = replace(problem, images=paths)
    parts = turn(config, problem)
    return ShownProblem(
        benchmark=benchmark,
        dataset=part.dataset,
        synthetic=part.synthetic,
        id=id,
        problem=problem,
        images=tuple(map(_shown_image, problem.images)),
        parts=tuple(parts),
        rendered=_recorded_prompt(result, benchmark, id) or ("" if absent else _rendered(result, config, parts)),
        samples=tuple(samples),
        judged=tuple(judgements(result, benchmark, id)),
        absent=absent,
    )


def _images(result: EvaluationResult, problem: Problem, split: str | None, record: str) -> tuple[tuple[Path, ...], str]:
    """The paths of the images, or their bare names and the reason why they are not available.

    record: the hash of the record and its images at the time of the evaluation.
    """
    path = result.locations().get(f"data.{problem.benchmark}")
    if path is None or not path.exists():
        return problem.images, "the images are not where the evaluation read them"
    try:
        dataset = registry.read_benchmark(problem.benchmark, path, split, require_images=False)
    except DatasetError as error:
        return problem.images, f"the data cannot be read any more: {error}"
    current = next((p for p in dataset.problems if p.id == problem.id), None)
    if current is None or record_hashes([current])[current.id] != record:
        return problem.images, f"{path} has another record or image of that id now; the evaluated record is shown"
    return current.images, ""


def _shown_image(path: Path) -> ShownImage:
    from PIL import Image

    try:
        size = path.stat().st_size
        with Image.open(path) as opened:
            return ShownImage(path, *opened.size, size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return ShownImage(path, 0, 0, 0)


def _recorded_prompt(result: EvaluationResult, benchmark: str, id: str) -> str:
    """The rendered prompt of a benchmark's first problem, which the result records; empty for any other problem."""
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
