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

    selected: problems of one or several benchmarks. texts: the samples of each problem by its id, which no other may
    have; a problem without any is missing. replies: replace first samples. dataset: a name other than the benchmark's
    makes the data synthetic.
    """
    benchmark_of = {problem.id: problem.benchmark for problem in selected}
    samples = max(map(len, texts.values()))
    config = EvalConfig(samples=samples, temperature=float(samples > 1), **settings)
    responses = {
        (benchmark_of[id], id, k): Response(benchmark_of[id], id, k, text, len(text.split()), "stop", 10)
        for id, samples_of_problem in texts.items()
        for k, text in enumerate(samples_of_problem)
    }
    for id, reply in (replies or {}).items():
        response = Response(benchmark_of[id], id, 0, reply.text, reply.tokens, reply.finish_reason)
        responses[response.key] = response
    board = RunningScores(selected)
    for response in responses.values():
        board.add(response)
    selections = []
    for benchmark in dict.fromkeys(benchmark_of.values()):
        own = tuple(problem for problem in selected if problem.benchmark == benchmark)
        name = dataset or benchmark
        selections.append(Selection(Dataset(benchmark, name, "test", name != benchmark, own), own))
    prompts = {s.dataset.benchmark: first_prompt(s.problems[0].id, config) for s in selections}
    provenance = Provenance(config, 0, ModelRecord(model, model), engine, prompts)
    write_tables(out, selections, responses, board.verdicts, provenance)
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
