"""A judge reads the responses of a finished evaluation in which the rules found no answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import summary
from bench.errors import ConfigurationError
from bench.evaluation.measures import figures, pooled_measures
from bench.records import Frame, ResponseKey, Verdict
from bench.review.predictions import result_predictions
from bench.review.results import EvaluationResult
from bench.scoring.judge import Judge, JudgeCase
from bench.summary import Summary
from vold.files import file_name, write_whole

_VERDICT_FIELDS = ("state", "correct", "extracted", "normalised", "method")
_ROW_FIELDS = ("sample", *_VERDICT_FIELDS)
_SAME = ("config", "model", "scoring")


@dataclass(frozen=True, slots=True)
class JudgedResult:
    """An evaluation with a judge's verdicts in place of the strict ones on unparsed responses.

    summary: counts only the responses that have a verdict. judge: as in ``Judge.report``. rows: the judge's
    verdicts.
    """

    summary: Summary
    judge: Mapping[str, object]
    rows: list[dict[str, object]]
    file: Path

    def to_json(self) -> dict[str, object]:
        return {**self.summary.to_json(), "judge": self.judge, "rows": self.rows}


def judge_result(judge: Judge, stage: Path) -> JudgedResult:
    """Ask ``judge`` about the unparsed responses of ``stage/out`` and write ``stage/judged-MODEL.json``.

    The strict tables do not change. A response without a verdict of the judge is missing.
    """
    import pandas as pd

    strict = summary.read(stage / "out")
    verdicts: dict[ResponseKey, dict[str, object]] = {}
    missing: dict[ResponseKey, str] = {}
    for benchmark, part in strict.benchmarks.items():
        if not part.states["unparsed"]:
            continue
        result = result_predictions(stage, benchmark)
        problems = {problem.id: problem for problem in result.problems}
        judged = judge.judge(
            JudgeCase(problems[prediction.id], prediction.response, verdict)
            for prediction, verdict in zip(result.predictions, result.verdicts, strict=True)
        )
        verdicts |= {(benchmark, *key): _fields(verdict) for key, verdict in judged.verdicts.items()}
        missing |= {(benchmark, *key): why for key, why in judged.missing.items()}
    table: Frame = pd.read_parquet(stage / "out" / "verdicts.parquet")
    rows = [row | verdicts.get(_key(row), {}) for row in table.to_dict("records") if _key(row) not in missing]
    result = JudgedResult(
        summary=_with_verdicts(strict, pd.DataFrame(rows, columns=table.columns)),
        judge=judge.report(len(verdicts), [{**_named(key), "why": why} for key, why in missing.items()]),
        rows=[{**_named(key), **fields} for key, fields in verdicts.items()],
        file=stage / f"judged-{file_name(judge.config.model)}.json",
    )
    write_whole(result.file, json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n")
    return result


def judgements(result: EvaluationResult, benchmark: str, id: str) -> list[dict[str, object]]:
    """The verdicts of every judge on the samples of one problem: ``judge``, ``sample`` and the fields of a verdict.

    Files of judges are next to a stage's ``out``, or in the directory of a copy; files about another result are
    ignored. Raises ConfigurationError for a damaged file.
    """
    folder = result.path.parent if result.locations() else result.path
    identity = {name: result.summary.to_json()[name] for name in _SAME}
    verdicts: list[dict[str, object]] = []
    for file in sorted(folder.glob("judged-*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if {name: content[name] for name in _SAME} != identity:
                continue
            rows = [row for row in content["rows"] if (row["benchmark"], row["id"]) == (benchmark, id)]
            model = str(content["judge"]["model"])
            verdicts += [{"judge": model, **{name: row[name] for name in _ROW_FIELDS}} for row in rows]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigurationError(
                f"{file}: does not hold a judge's verdicts; remove it and evaluate again with --judge"
            ) from error
    return verdicts


def _key(row: dict[str, Any]) -> ResponseKey:
    return row["benchmark"], row["id"], row["sample"]


def _named(key: ResponseKey) -> dict[str, object]:
    return dict(zip(("benchmark", "id", "sample"), key, strict=True))


def _fields(verdict: Verdict) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in _VERDICT_FIELDS}


def _with_verdicts(strict: Summary, table: Frame) -> Summary:
    """The summary with the figures of the verdicts in ``table``."""
    parts = {
        benchmark: replace(part, **figures(table[table["benchmark"] == benchmark], strict.samples))
        for benchmark, part in strict.benchmarks.items()
    }
    return replace(strict, measures=pooled_measures(table, parts, strict.samples), benchmarks=parts)
