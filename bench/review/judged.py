"""What a judge makes of the responses of a finished evaluation that the rules could not read."""

import json
from pathlib import Path
from typing import Any

from bench.errors import ConfigurationError
from bench.evaluation.summary import measures
from bench.records import STATES, Frame, ResponseKey, Verdict
from bench.review.predictions import answered
from bench.review.results import EvaluationResult
from bench.scoring.judge import Judge, JudgeCase
from vold.files import file_name, write_whole

_OF_VERDICT = ("state", "correct", "extracted", "normalised", "method")
_SHOWN = ("sample", *_OF_VERDICT)
_KEPT = ("config", "model", "scoring")
_KEPT_OF_PART = ("dataset", "split", "synthetic", "problems", "expected", "baselines")


def judge_result(judge: Judge, stage: Path) -> dict[str, Any]:
    """Ask ``judge`` about the unparsed responses of ``stage/out``, whose strict tables stay as they are.

    Returns what ``stage/judged-MODEL.json`` then holds: a summary of the form of ``summary.json`` with the judge's
    verdicts in place of the strict ones on those rows, ``judge`` (who was asked, how often, what is missing), and
    ``rows`` with each of its verdicts. A response that it gave no verdict on is missing, out of ``n``.
    """
    import pandas as pd

    strict = json.loads((stage / "out" / "summary.json").read_text(encoding="utf-8"))
    read: dict[ResponseKey, dict[str, Any]] = {}
    missing: dict[ResponseKey, str] = {}
    for benchmark, part in strict["benchmarks"].items():
        if not part["states"]["unparsed"]:
            continue
        found = answered(stage, benchmark)
        known = {problem.id: problem for problem in found.problems}
        judged = judge.judge(
            JudgeCase(known[prediction.id], prediction.response, verdict)
            for prediction, verdict in zip(found.predictions, found.verdicts, strict=True)
        )
        read |= {(benchmark, *place): _fields(verdict) for place, verdict in judged.verdicts.items()}
        missing |= {(benchmark, *place): why for place, why in judged.missing.items()}
    table: Frame = pd.read_parquet(stage / "out" / "verdicts.parquet")
    rows = [row | read.get(_key(row), {}) for row in table.to_dict("records") if _key(row) not in missing]
    told = {**judge.about(), "asked": len(read) + len(missing), "answered": len(read),
            "missing": [{**_named(key), "why": why} for key, why in missing.items()]}  # fmt: skip
    verdicts = [{**_named(key), **fields} for key, fields in read.items()]
    result = {**_summary(strict, pd.DataFrame(rows, columns=table.columns)), "judge": told, "rows": verdicts}
    file = stage / f"judged-{file_name(judge.config.model)}.json"
    write_whole(file, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    return {**result, "file": str(file)}


def judgements(result: EvaluationResult, benchmark: str, id: str) -> list[dict[str, Any]]:
    """What judges read in the samples of one problem: ``judge``, ``sample`` and the fields of a verdict, by judge.

    Their files lie beside a stage's ``out``, or in the directory of a copy; those of another result are passed over.
    Raises ConfigurationError where one is damaged.
    """
    place = result.path.parent if result.locations() else result.path
    found: list[dict[str, Any]] = []
    for file in sorted(place.glob("judged-*.json")):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if any(told[name] != result.summary.get(name) for name in _KEPT):
                continue
            own = [row for row in told["rows"] if (row["benchmark"], row["id"]) == (benchmark, id)]
            found += [{"judge": str(told["judge"]["model"]), **{name: row[name] for name in _SHOWN}} for row in own]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigurationError(
                f"{file}: does not hold a judge's verdicts; remove it and evaluate again with --judge"
            ) from error
    return found


def _key(row: dict[str, Any]) -> ResponseKey:
    return row["benchmark"], row["id"], row["sample"]


def _named(key: ResponseKey) -> dict[str, Any]:
    return dict(zip(("benchmark", "id", "sample"), key, strict=True))


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in _OF_VERDICT}


def _summary(strict: dict[str, Any], table: Frame) -> dict[str, Any]:
    """The summary's counts and measures anew, of the verdicts in ``table``."""
    samples = strict["config"]["samples"]
    parts = {}
    for benchmark, part in strict["benchmarks"].items():
        verdicts = table[table["benchmark"] == benchmark]
        states = verdicts["state"].value_counts()
        parts[benchmark] = {
            **{name: part[name] for name in _KEPT_OF_PART},
            "n": len(verdicts),
            "accuracy": float(verdicts["correct"].mean()) if len(verdicts) else None,
            "states": {state: int(states.get(state, 0)) for state in STATES},
            "measures": measures(verdicts, samples),
        }
    return {**{name: strict[name] for name in _KEPT}, "measures": measures(table, samples), "benchmarks": parts}
