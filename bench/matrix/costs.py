"""What a plan is expected to cost, and where the estimate comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from bench.matrix.plan import Plan, Stage
from bench.store import Store


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """Seconds of ``unit`` for each stage that is not finished yet; ``sources`` says per kind where it comes from."""

    unit: str
    seconds: Mapping[str, float]
    sources: Mapping[str, str]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def pending(plan: Plan, store: Store) -> dict[str, Stage]:
    """The stages of a plan with something left to do, in topological order."""
    return {name: stage for name, stage in plan.stages.items() if not store.settled(stage.spec)}


def estimate(plan: Plan, store: Store) -> CostEstimate:
    """Measured seconds a step of this plan's finished stages where there are any, else the profile's figure."""
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
