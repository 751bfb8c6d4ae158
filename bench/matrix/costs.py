"""The expected cost of a plan, and the source of the estimate."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from bench.matrix.plan import Plan, Stage
from bench.store import Store


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """The expected cost of the unfinished stages.

    unit: CPU or GPU; the seconds are seconds of one of these.
    seconds: by stage id.
    sources: by kind of stage, where the estimate comes from.
    """

    unit: str
    seconds: Mapping[str, float]
    sources: Mapping[str, str]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def pending(plan: Plan, store: Store) -> dict[str, Stage]:
    """The unfinished stages of a plan, in topological order."""
    return {name: stage for name, stage in plan.stages.items() if not store.settled(stage.spec)}


def estimate(plan: Plan, store: Store) -> CostEstimate:
    """Estimate by the median seconds per step of this plan's finished stages, or by the profile if none is finished."""
    cost = plan.profile.settings.cost
    measured: dict[str, list[float]] = {}
    for name, stage in plan.stages.items():
        status = store.status(name) if store.done(name) else None
        if status is not None:
            measured.setdefault(stage.kind, []).append(status.wall_seconds / stage.steps)
    rates, sources = {}, {}
    for kind in dict.fromkeys(stage.kind for stage in plan.stages.values()):
        if kind in measured:
            rates[kind], sources[kind] = median(measured[kind]), f"{len(measured[kind])} finished stages of this plan"
        else:
            rates[kind], sources[kind] = getattr(cost, kind, 0.0), cost.source
    seconds = {name: rates[stage.kind] * stage.steps for name, stage in pending(plan, store).items()}
    return CostEstimate(cost.unit, seconds, sources)
