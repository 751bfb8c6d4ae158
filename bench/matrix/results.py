"""The finished stages of a plan as tables."""

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.evaluation.results import Result
from bench.matrix.plan import Cell, Plan, Stage
from bench.matrix.store import Store

if TYPE_CHECKING:
    import pandas as pd

_TRAINING = ("sft", "rl")
_PACKAGES = ("vold-bench", "torch", "transformers", "tokenizers", "numpy", "pandas", "scipy", "math-verify", "pillow")


@dataclass(frozen=True, slots=True)
class MatrixResults:
    """``verdicts``: one row a response, the columns of ``verdicts.parquet`` with arm and seed.

    ``curves``: arm, seed, stage (sft or rl), step, metric, value. ``stages``: arm, seed, kind, stage_id, status,
    cpu_seconds, wall_seconds; a stage that several arms share is listed under each. ``summaries``: by (arm, seed)
    the ``summary.json`` of the evaluation, with ``expected`` responses by benchmark. ``settings``: by (arm, kind)
    the resolved configuration.
    """

    verdicts: "pd.DataFrame"
    curves: "pd.DataFrame"
    stages: "pd.DataFrame"
    summaries: dict[tuple[str, int], dict[str, Any]]
    settings: dict[tuple[str, str], dict[str, Any]]
    provenance: dict[str, Any]


def load(plan: Plan, store: Store) -> MatrixResults:
    """Read what is finished; what is not is absent from ``verdicts`` and shown in ``stages``."""
    return read(plan.cells, plan.stages, store, provenance(plan, store))


def read(cells: Sequence[Cell], stages: Mapping[str, Stage], store: Store, origin: Mapping[str, Any]) -> MatrixResults:
    """The tables of some cells; ``origin`` is their provenance."""
    import pandas as pd

    verdicts, curves, rows, summaries, settings = [], [], [], {}, {}
    for cell in cells:
        for kind, name in cell.stages.items():
            settings[cell.arm, kind] = dict(stages[name].spec.config)
            rows.append({"arm": cell.arm, "seed": cell.seed, "kind": kind, "stage_id": name, **_status(store, name)})
            if not store.done(name):
                continue
            if kind in _TRAINING:
                curves += [(cell.arm, cell.seed, kind, *row) for row in _curve(store.path(name) / "metrics.jsonl")]
            if kind == "eval":
                result = Result(store.path(name) / "out", name)
                verdicts.append(result.verdicts.assign(arm=cell.arm, seed=cell.seed))
                summaries[cell.arm, cell.seed] = _with_expected(result.summary)
    return MatrixResults(
        verdicts=pd.concat(verdicts, ignore_index=True) if verdicts else pd.DataFrame(columns=["arm", "seed"]),
        curves=pd.DataFrame(curves, columns=["arm", "seed", "stage", "step", "metric", "value"]),
        stages=pd.DataFrame(rows),
        summaries=summaries,
        settings=settings,
        provenance=dict(origin),
    )


def _with_expected(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary of an evaluation, with the number of responses that each benchmark should have."""
    return {**summary, "expected": {name: part["expected"] for name, part in summary["benchmarks"].items()}}


def _status(store: Store, name: str) -> dict[str, Any]:
    status = store.status(name)
    if status is None:
        return {"status": "missing", "cpu_seconds": 0.0, "wall_seconds": 0.0}
    return {"status": status.state, "cpu_seconds": status.cpu_seconds, "wall_seconds": status.wall_seconds}


def _curve(path: Path) -> Iterator[tuple[int, str, float]]:
    """(step, metric, value) of every number in a metrics file."""
    with path.open(encoding="utf-8") as file:
        for row in map(json.loads, filter(str.strip, file)):
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    yield row["step"], name, float(value)


def provenance(plan: Plan, store: Store) -> dict[str, Any]:
    """Where the numbers come from: code, versions, models, data, machine and cost."""
    settings = plan.profile.settings
    finished = [status for name in plan.stages if store.done(name) and (status := store.status(name))]
    return {
        "matrix": _portable(str(plan.spec.path)),
        "profile": plan.profile.name,
        "about": settings.about,
        "seeds": list(plan.seeds),
        "departures": plan.departures,
        "models": settings.model_dump(mode="json")["models"],
        "data": settings.data.model_dump(),
        "inputs": inputs(plan.stages),
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


def inputs(stages: Mapping[str, Stage]) -> dict[str, dict[str, str]]:
    """Models and data from outside: by the name under which stages read them, identity to a portable place."""
    found: dict[str, dict[str, str]] = {}
    for stage in stages.values():
        for name, identity in stage.spec.identity["inputs"].items():
            if identity not in stages:
                found.setdefault(name, {})[identity] = _portable(stage.spec.locations[name])
    return found


def environment() -> dict[str, Any]:
    """Code, versions and machine."""
    return {
        "git": _git(),
        "versions": {name: installed(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
    }


def _portable(location: str) -> str:
    """The last two parts of a path: enough to name it, nothing of the machine."""
    return location if location.startswith("hub:") else "/".join(Path(location).parts[-2:])


def installed(package: str) -> str:
    """The version of a package on this machine, or ``not installed``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git() -> dict[str, Any]:
    """Commit of the code and whether it was changed since; empty outside a checkout."""

    def ask(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "changed": bool(ask("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def processor() -> str:
    """The processor's name as its maker writes it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
