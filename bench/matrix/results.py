"""The results of a plan as tables, read from the finished stages."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.matrix.plan import SAMPLED, ArmSeed, Plan, Stage
from bench.matrix.provenance import environment
from bench.review.results import EvaluationResult
from bench.store import Store
from bench.summary import Summary
from vold.locations import on_hub

if TYPE_CHECKING:
    import pandas as pd

_TRAINING = ("sft", "rl")
_RUN = ("arm", "student", "seed")


@dataclass(frozen=True, slots=True)
class MatrixResults:
    """The tables that a report is made of.

    verdicts: one row per response, with the columns of ``verdicts.parquet`` and arm, student and seed.
    sampled: the same of the second evaluation, whose responses are sampled; empty if the matrix file asks for none.
    curves: arm, student, seed, stage (sft or rl), step, metric, value.
    stages: arm, student, seed, kind, stage_id, status, cpu_seconds, wall_seconds. The kind of the second evaluation is
    ``sampled``. A stage that several runs share has a row for each of them.
    summaries: the summary of the evaluation by (arm, student, seed).
    settings: the resolved configuration by (arm, kind).
    provenance: see ``provenance``.
    """

    verdicts: "pd.DataFrame"
    sampled: "pd.DataFrame"
    curves: "pd.DataFrame"
    stages: "pd.DataFrame"
    summaries: dict[tuple[str, str, int], Summary]
    settings: dict[tuple[str, str], dict[str, object]]
    provenance: dict[str, Any]


def load(plan: Plan, store: Store) -> MatrixResults:
    """Read the finished stages. Unfinished ones only appear in the table ``stages``."""
    return read(plan.cells, plan.stages, store, provenance(plan, store))


def read(
    cells: Sequence[ArmSeed], stages: Mapping[str, Stage], store: Store, origin: Mapping[str, object]
) -> MatrixResults:
    """The tables of some cells. ``origin``: their provenance."""
    import pandas as pd

    verdicts, sampled, curves, rows, summaries, settings = [], [], [], [], {}, {}
    for cell in cells:
        run = dict(zip(_RUN, (cell.arm, cell.student, cell.seed), strict=True))
        for kind, name in cell.stages.items():
            settings[cell.arm, kind] = dict(stages[name].spec.config)
            rows.append({**run, "kind": kind, "stage_id": name, **_status(store, name)})
            if not store.done(name):
                continue
            if kind in _TRAINING:
                curves += [(*run.values(), kind, *row) for row in _curve(store.path(name) / "metrics.jsonl")]
            if kind == "eval":
                result = EvaluationResult(store.path(name) / "out", name)
                verdicts.append(result.verdicts.assign(**run))
                summaries[cell.arm, cell.student, cell.seed] = result.summary
            if kind == SAMPLED:
                result = EvaluationResult(store.path(name) / "out", name)
                sampled.append(result.verdicts.assign(**run))
    return MatrixResults(
        verdicts=_joined(verdicts),
        sampled=_joined(sampled),
        curves=pd.DataFrame(curves, columns=[*_RUN, "stage", "step", "metric", "value"]),
        stages=pd.DataFrame(rows),
        summaries=summaries,
        settings=settings,
        provenance=dict(origin),
    )


def _joined(tables: "Sequence[pd.DataFrame]") -> "pd.DataFrame":
    import pandas as pd

    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_RUN)


def _status(store: Store, name: str) -> dict[str, object]:
    status = store.status(name)
    if status is None:
        return {"status": "missing", "cpu_seconds": 0.0, "wall_seconds": 0.0}
    return {"status": status.state, "cpu_seconds": status.cpu_seconds, "wall_seconds": status.wall_seconds}


def _curve(path: Path) -> Iterator[tuple[int, str, float]]:
    """The (step, metric, value) of every number in a metrics file."""
    with path.open(encoding="utf-8") as file:
        for row in map(json.loads, filter(str.strip, file)):
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    yield row["step"], name, float(value)


def provenance(plan: Plan, store: Store) -> dict[str, object]:
    """The origin of the numbers: code, versions, models, data, machine and cost."""
    settings = plan.profile.settings
    finished = [status for name in plan.stages if store.done(name) and (status := store.status(name))]
    return {
        "matrix": _portable(str(plan.spec.path)),
        "profile": plan.profile.name,
        "about": settings.about,
        "students": list(plan.students),
        "seeds": list(plan.seeds),
        "changes": plan.changes,
        "models": settings.model_dump(mode="json")["models"],
        "data": settings.data.model_dump(),
        "inputs": external_inputs(plan.stages),
        "hardware": settings.hardware.model_dump(),
        "execution": settings.execution.model_dump(mode="json"),
        **environment(),
        "stages": len(plan.stages),
        "stages_done": len(finished),
        "degraded": sum(bool(status.degraded) for status in finished),
        "cpu_seconds": round(sum(status.cpu_seconds for status in finished), 1),
        "first_started": min((status.started for status in finished), default=None),
        "last_finished": max((status.finished for status in finished), default=None),
    }


def external_inputs(stages: Mapping[str, Stage]) -> dict[str, dict[str, str]]:
    """The models and data that no stage made: for each name of an input, a portable location by identity."""
    inputs: dict[str, dict[str, str]] = {}
    for stage in stages.values():
        for name, identity in stage.spec.identity["inputs"].items():
            if identity not in stages:
                inputs.setdefault(name, {})[identity] = _portable(stage.spec.locations[name])
    return inputs


def _portable(location: str) -> str:
    """The last two parts of a path, which name it without telling anything about the machine."""
    return location if on_hub(location) else "/".join(Path(location).parts[-2:])
