"""``vold-bench bridge``: other suites' scorers and tasks beside ours."""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from bench.benchmarks import BENCHMARKS
from bench.bridges.reasons import MEANING
from bench.bridges.vlmeval import Comparison, compare
from bench.cli_score import problems_of
from bench.datasets import SMALLWORLD
from bench.errors import ConfigurationError
from bench.hints import nearest
from bench.json_output import print_json
from bench.official import Prediction
from bench.predictions import read_predictions
from bench.records import Problem, Verdict
from bench.report.numbers import interval, percent
from bench.scoring import Mode, score_predictions
from vold.files import write_whole

Inputs = tuple[tuple[Problem, ...], list[Prediction], list[Verdict]]
_SHOWN = 50


def vlmeval(
    place: Path, benchmark: str, records: Path | None, mode: str, cot: bool, trust: bool, out: Path | None
) -> None:
    """Score a prediction file, or one benchmark of a result, by VLMEvalKit and by us; print what differs and why."""
    if benchmark not in BENCHMARKS:
        raise ConfigurationError(f"--benchmark {benchmark}: unknown; {nearest(benchmark, BENCHMARKS)}")
    if mode not in ("strict", "official"):
        raise ConfigurationError(f"--mode {mode}: unknown; choose strict or official")
    scoring: Mode = "strict" if mode == "strict" else "official"
    inputs = _result(place, benchmark, scoring) if place.is_dir() else _file(place, benchmark, records, scoring)
    compared = compare(benchmark, *inputs, mode, cot=cot, trust_responses=trust)
    if out is not None:
        result = {**compared.to_json(), "predictions": str(place)}
        write_whole(out, json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    _show(compared)


def lm_eval(
    model: str,
    tasks: Sequence[str],
    data: Path,
    asked: Mapping[str, Any],
    seed: int,
    execution: Mapping[str, Any],
    out: Path | None,
    as_json: bool,
) -> None:
    """Run text-only tasks through lm-eval on our engine; publish and print a result like that of ``eval``."""
    os.environ |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")  # before lm-eval is imported
    os.environ.setdefault("LMEVAL_LOG_LEVEL", "ERROR")
    if find_spec("lm_eval") is None:
        raise ConfigurationError("the bridge needs lm-eval; install it with `pip install 'vold-bench[lm-eval]'`")
    from bench.bridges import text
    from bench.bridges.lm_eval import evaluate_text
    from bench.evaluation.config import EvalConfig
    from bench.evaluation.selection import select
    from vold.config import Execution

    path = _checkpoint(model)
    config = EvalConfig.model_validate({name: value for name, value in asked.items() if value is not None})
    settings = Execution(**{name: value for name, value in execution.items() if value is not None})
    sets = [text.read(name, data) for name in tasks]
    place = out or Path("results") / "lm_eval" / path.name
    evaluate_text(
        config,
        model=path,
        selections=[select(found, config.limit, config.subset_seed) for found in sets],
        out=place,
        seed=seed,
        execution=settings,
    )
    summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json({"out": place, **summary})
        return
    table = Table("task", Column("n", justify="right"), "% right, 95 % interval", "not read")
    for name, part in summary["benchmarks"].items():
        measure = next(iter(part["measures"].values()))
        states = ", ".join(
            f"{n} {state}" for state, n in part["states"].items() if n and state not in ("right", "wrong")
        )
        score = f"{percent(part['accuracy'])} {interval(measure['low'], measure['high'])}"
        table.add_row(name, str(part["n"]), score, states or "none")
    Console().print(table)
    print(f"result: {place}")


def _checkpoint(model: str) -> Path:
    if model.startswith(SMALLWORLD):
        from bench.smallworld import CHECKPOINTS, checkpoint_path

        name = model.removeprefix(SMALLWORLD)
        if name not in CHECKPOINTS:
            raise ConfigurationError(f"--model {model}: unknown; {nearest(name, CHECKPOINTS)}")
        return checkpoint_path(name)
    path = Path(model).expanduser()
    if not path.is_dir():
        raise ConfigurationError(f"--model {model}: no such directory")
    return path


def _file(file: Path, benchmark: str, records: Path | None, mode: Mode) -> Inputs:
    predictions = read_predictions(file)
    problems, _ = problems_of(benchmark, records, predictions, file)
    return problems, predictions, list(score_predictions(benchmark, problems, predictions, mode).verdicts)


def _result(place: Path, benchmark: str, mode: Mode) -> Inputs:
    """The responses of one benchmark in a result, those that the engine failed on left out."""
    import pandas as pd

    from bench.evaluation.items import read_items

    folder = place / "out" if (place / "out").is_dir() else place
    if not (folder / "responses.parquet").is_file():
        raise ConfigurationError(f"{place}: holds no result (responses.parquet); give what `vold-bench eval` wrote")
    problems = tuple(item for item in read_items(folder / "items.parquet") if item.benchmark == benchmark)
    table: Any = pd.read_parquet(folder / "verdicts.parquet").merge(
        pd.read_parquet(folder / "responses.parquet")[["benchmark", "id", "sample", "text"]],
        on=["benchmark", "id", "sample"],
    )
    rows = table[(table["benchmark"] == benchmark) & (table["state"] != "error")].to_dict("records")
    if not rows:
        asked = ", ".join(map(str, table["benchmark"].unique()))
        raise ConfigurationError(f"{place}: holds no responses to {benchmark}, but to {asked}")
    predictions = [Prediction(row["id"], row["sample"], row["text"]) for row in rows]
    if mode == "official":
        return problems, predictions, list(score_predictions(benchmark, problems, predictions, mode).verdicts)
    fields = ("id", "sample", "state", "extracted", "normalised", "method")
    return problems, predictions, [Verdict(**{name: row[name] for name in fields}) for row in rows]


def _show(compared: Comparison) -> None:
    found = compared.to_json()
    console, judged = Console(), found["judged"]
    console.print(
        f"{compared.benchmark}, ms-vlmeval {compared.version} beside our {compared.mode} scoring: it has a verdict on "
        f"{judged} of {found['n']} responses; of these {found['judged_correct']['vlmevalkit']} are right there and "
        f"{found['judged_correct']['ours']} here; {found['agree']} verdicts agree",
        highlight=False,
        markup=False,
    )
    table = Table("reason", Column("n", justify="right"), "what it means")
    for name, count in compared.reasons.items():
        table.add_row(name, str(count), MEANING[name])
    if compared.reasons:
        console.print(table)
    differing = [row for row in compared.judged if row.reason is not None]
    rows = Table("id", "ours", "read here", "VLMEvalKit", "read there", "reason", title="verdicts that differ")
    for row in differing[:_SHOWN]:
        there = "right" if row.theirs.right else "wrong"
        rows.add_row(
            row.ours.id, row.ours.state, _cut(row.ours.extracted), there, _cut(row.theirs.extracted), row.reason
        )
    if differing:
        console.print(rows)
    if len(differing) > _SHOWN:
        console.print(f"... and {len(differing) - _SHOWN} more; --json lists them all")


def _cut(text: str) -> str:
    from rich.markup import escape

    return escape(text if len(text) <= 24 else f"{text[:21]}...")
