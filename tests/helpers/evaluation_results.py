"""Results of evaluations for tests, written by the real code from responses that a test chooses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.benchmarks.base import Dataset
from bench.engines import Reply
from bench.evaluation.config import EvalConfig
from bench.evaluation.parquet_tables import Provenance, write_tables
from bench.evaluation.running_scores import RunningScores
from bench.evaluation.selection import Selection
from bench.records import Problem, Response
from bench.summary import Baselines, BenchmarkSummary, FirstPrompt, ModelRecord, ScoringRecord, Summary

ENGINE = {"name": "builtin", "versions": {"torch": "2.13.0"}}


def problems(ids: Sequence[str], **changes: Any) -> list[Problem]:
    """Problems whose answer is 3."""
    values: dict[str, Any] = {"question": "1 + 2?", "answer": "3", "kind": "integer", **changes}
    return [Problem("mathvision", id, images=(), options=(), cluster=id, **values) for id in ids]


def write_result(
    out: Path,
    selected: Sequence[Problem],
    texts: Mapping[str, Sequence[str]],
    *,
    model: str = "student",
    engine: Mapping[str, Any] = ENGINE,
    replies: Mapping[str, Reply] | None = None,
    dataset: str | None = None,
    **settings: Any,
) -> Path:
    """Write the result of an evaluation and return ``out``.

    texts: the samples of each problem by id; a problem without any is missing. replies: replace first samples.
    dataset: a name other than the benchmark's makes the data synthetic.
    """
    benchmark = selected[0].benchmark
    dataset = dataset or benchmark
    samples = max(map(len, texts.values()))
    config = EvalConfig(samples=samples, temperature=float(samples > 1), **settings)
    responses = {
        (benchmark, id, k): Response(benchmark, id, k, text, len(text.split()), "stop", 10)
        for id, samples_of_problem in texts.items()
        for k, text in enumerate(samples_of_problem)
    }
    for id, reply in (replies or {}).items():
        responses[benchmark, id, 0] = Response(benchmark, id, 0, reply.text, reply.tokens, reply.finish_reason)
    board = RunningScores(selected)
    for response in responses.values():
        board.add(response)
    prompts = {benchmark: first_prompt(selected[0].id, config)}
    provenance = Provenance(config, 0, ModelRecord(model, model), engine, prompts)
    data = Dataset(benchmark, dataset, "test", dataset != benchmark, tuple(selected))
    write_tables(out, [Selection(data, tuple(selected))], responses, board.verdicts, provenance)
    return out


def first_prompt(id: str, config: EvalConfig) -> FirstPrompt:
    """A first prompt whose hashes are the template's name."""
    template = config.template
    return FirstPrompt(id, template, [], sha256=template, token_ids_sha256=template, image_grids=[])


def a_summary(benchmarks: Mapping[str, BenchmarkSummary]) -> Summary:
    scoring = ScoringRecord("strict", 1)
    config = EvalConfig(engine="builtin").model_dump(mode="json")
    return Summary(config, 0, ModelRecord("student", "aa"), dict(ENGINE), scoring, {}, dict(benchmarks))


def a_benchmark_summary(dataset: str, problems: int) -> BenchmarkSummary:
    """The summary of synthetic problems with one right response each."""
    return BenchmarkSummary(
        dataset=dataset, split="test", synthetic=True, passed_over={}, records=problems, problems=problems,
        records_sha256="aa", unscorable={}, expected=problems, n=problems, accuracy=1.0, measures={},
        baselines=Baselines(0.25, 0.125), states={"right": problems}, errors={}, tokens=problems,
        prompt=first_prompt("0", EvalConfig(engine="builtin")),
    )  # fmt: skip
