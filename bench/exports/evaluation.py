"""A finished evaluation as the exports need it: its summary, and its rows by benchmark."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import summary
from bench.errors import ConfigurationError
from bench.evaluation import problem_table
from bench.records import Problem
from bench.summary import BenchmarkSummary, Measure
from vold.files import file_name

_FILES = (summary.FILE, problem_table.FILE, "responses.parquet", "verdicts.parquet")


@dataclass(frozen=True, slots=True)
class Sample:
    """A response with its verdict: the columns of ``responses.parquet`` and ``verdicts.parquet``."""

    problem: Problem
    sample: int
    text: str
    tokens: int
    finish_reason: str
    prompt_tokens: int | None
    state: str
    correct: bool
    extracted: str
    method: str

    @property
    def error(self) -> str:
        """Why the engine failed, or empty."""
        return self.text if self.finish_reason == "error" else ""

    @property
    def response(self) -> str:
        """The model's text; empty if the engine failed."""
        return "" if self.finish_reason == "error" else self.text


@dataclass(frozen=True)
class BenchmarkExport:
    """One benchmark of an evaluation, with its entry in the summary."""

    evaluation: "ExportedEvaluation"
    benchmark: str
    summary: BenchmarkSummary

    @property
    def task(self) -> str:
        """Data set and split. Synthetic data have the generator's name, not the benchmark's."""
        name, split = self.summary.dataset, self.summary.split
        return f"{name}_{split}" if split else name

    @property
    def file_name(self) -> str:
        """``task`` as a safe part of a path, because anyone may have written the summary."""
        return file_name(self.task)

    @property
    def synthetic(self) -> bool:
        return self.summary.synthetic

    @cached_property
    def problems(self) -> dict[str, Problem]:
        problems = problem_table.read_problems(self.evaluation.path)
        return {problem.id: problem for problem in problems if problem.benchmark == self.benchmark}

    @cached_property
    def samples(self) -> list[Sample]:
        """The responses in the order in which the problems were asked."""
        responses = self._rows("responses", ["id", "sample", "text", "tokens", "finish_reason", "prompt_tokens"])
        verdicts = self._rows("verdicts", ["id", "sample", "state", "correct", "extracted", "method"])
        rows = ({**response, **verdict} for response, verdict in zip(responses, verdicts, strict=True))
        return [Sample(problem=self.problems[row.pop("id")], **row) for row in rows]

    @cached_property
    def missing(self) -> list[str]:
        """Missing responses, as ``id`` or ``id#sample``."""
        present = {(sample.problem.id, sample.sample) for sample in self.samples}
        k = self.evaluation.k
        missing = [(id, number) for id in self.problems for number in range(k) if (id, number) not in present]
        return [id if k == 1 else f"{id}#{number}" for id, number in missing]

    @property
    def measures(self) -> Mapping[str, Measure]:
        """By name, ``avg@k`` first; empty if there is no response."""
        return self.summary.measures

    @property
    def about(self) -> dict[str, Any]:
        """The facts that every export states together with a number of this benchmark."""
        config, prompt = self.evaluation.config, self.summary.prompt
        return {
            "benchmark": self.benchmark,
            "dataset": self.summary.dataset,
            "split": self.summary.split,
            "synthetic": self.synthetic,
            "n": self.summary.n,
            "expected": self.summary.expected,
            "missing": self.missing,
            "states": self.summary.states,
            "k": self.evaluation.k,
            "measures": {name: asdict(measure) for name, measure in self.measures.items()},
            "interval": "95 %: Wilson's, on the effective number of items",
            "scoring": self.evaluation.scoring,
            "template": config["template"],
            "prompt_sha256": prompt.sha256,
            "prompt_token_ids_sha256": prompt.token_ids_sha256,
            "first_prompt": prompt.rendered,
            "temperature": config["temperature"],
            "max_tokens": config["max_tokens"],
            "seed": self.evaluation.summary.seed,
            "engine": self.evaluation.engine,
            "model": asdict(self.evaluation.summary.model),
        }

    def _rows(self, table: str, columns: list[str]) -> list[dict[str, Any]]:
        import pyarrow.parquet as pq

        own = [("benchmark", "=", self.benchmark)]
        return pq.read_table(self.evaluation.path / f"{table}.parquet", columns=columns, filters=own).to_pylist()


class ExportedEvaluation:
    """The finished evaluation in ``path``, the ``out`` of its stage.

    model: the name in the exports; None means the checkpoint's own. Raises ConfigurationError if there is no finished
    evaluation.
    """

    def __init__(self, path: Path, model: str | None = None) -> None:
        if absent := [name for name in _FILES if not (path / name).is_file()]:
            raise ConfigurationError(
                f"{path}: no finished evaluation, {', '.join(absent)} are absent; name the directory that "
                "`vold-bench eval` printed as its result"
            )
        self.path = path
        self.summary = summary.read(path)
        self.model = model or self.summary.model.name

    @property
    def config(self) -> Mapping[str, Any]:
        return self.summary.config

    @property
    def k(self) -> int:
        return self.summary.samples

    @property
    def engine(self) -> Mapping[str, Any]:
        """Its name, and the versions and settings that it reports."""
        return self.summary.engine

    @property
    def scoring(self) -> str:
        scoring = self.summary.scoring
        return f"{scoring.mode} (version {scoring.version})"

    @property
    def finished(self) -> datetime:
        return datetime.fromtimestamp((self.path / summary.FILE).stat().st_mtime, UTC)

    @property
    def file_name(self) -> str:
        """The model's name as a safe part of a path."""
        parts = (part.lstrip(".") for part in re.split(r"[/\\]", self.model))
        return file_name("__".join(filter(None, parts))) or "model"

    def parts(self) -> Iterator[BenchmarkExport]:
        for benchmark, part in self.summary.benchmarks.items():
            yield BenchmarkExport(self, benchmark, part)
