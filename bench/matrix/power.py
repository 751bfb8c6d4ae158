"""The power of the contrasts of a plan: what they find with the planned runs, and how many seeds they would need."""

from dataclasses import dataclass
from math import isfinite

from bench.matrix.plan import Plan
from bench.matrix.spec import Analysis, Contrast
from bench.report.sides import arms_of, comparison
from bench.stats.corrections import ALPHA, CORRECTIONS


@dataclass(frozen=True, slots=True)
class PlannedContrast:
    """What a contrast of a plan can find. Differences are shares (0.02: two points).

    seeds: number of seeds of each of ``students``; 0 where the plan lacks an arm of the contrast.
    level: the level of the test in the strictest step of the correction.
    sd, item_error: the planned spread; ``sd`` is None if the matrix file has none.
    mde: the smallest true difference that is found with 80 % power; None without ``sd`` and below two seeds.
    effect: the expected effect, or otherwise the smallest one that matters; 0 where the file has neither.
    seeds_needed: seeds per student at which ``effect`` is found with 80 % power; None without ``sd`` or ``effect``, and
    where no number of seeds is enough.
    """

    id: str
    comparison: str
    students: int
    seeds: int
    level: float
    min_effect: float
    effect: float
    sd: float | None
    item_error: float
    mde: float | None = None
    seeds_needed: int | None = None

    @property
    def runs(self) -> int:
        return self.students * self.seeds

    @property
    def df(self) -> int:
        """Degrees of freedom of the spread over runs."""
        return self.students * max(self.seeds - 1, 0)


def planned_contrasts(plan: Plan) -> list[PlannedContrast]:
    """The power of every contrast of the matrix file, in its order. All of them count for the correction."""
    return [_planned(plan, contrast, plan.spec.analysis) for contrast in plan.spec.analysis.contrasts]


def _planned(plan: Plan, contrast: Contrast, analysis: Analysis) -> PlannedContrast:
    complete = {cell.arm for cell in plan.cells}.issuperset(arms_of(contrast))
    students, seeds = len(plan.students), len(plan.seeds) if complete else 0
    level = ALPHA * CORRECTIONS[analysis.correction].strictest(len(analysis.contrasts))
    sd = analysis.planned_sd if contrast.planned_sd is None else contrast.planned_sd
    item_error = analysis.planned_item_error if contrast.planned_item_error is None else contrast.planned_item_error
    effect = contrast.expected_effect or contrast.min_effect
    mde = needed = None
    if sd is not None:
        from bench.stats.power import detectable_effect, planned_spread, seeds_needed  # scipy imports slowly

        if seeds > 1:
            detectable = detectable_effect(planned_spread(sd, students, seeds, item_error), level)
            mde = detectable if isfinite(detectable) else None
        if effect:
            needed = seeds_needed(effect, planned_spread(sd, students, 2, item_error), students, 2 * students, level)
    return PlannedContrast(
        id=contrast.id,
        comparison=comparison(contrast, plan.spec.arms).pair,
        students=students,
        seeds=seeds,
        level=level,
        min_effect=contrast.min_effect,
        effect=effect,
        sd=sd,
        item_error=item_error,
        mde=mde,
        seeds_needed=needed,
    )
