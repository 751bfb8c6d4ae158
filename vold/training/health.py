"""Guards of a training run: which steps to skip, and warnings when the run is about to fail."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.execution import HealthConfig

if TYPE_CHECKING:
    from vold.training.metrics import Totals

_log = logging.getLogger(__name__)

MetricsRow = Mapping[str, float | int | None]


def guarded_loss(loss: float, totals: "Totals") -> float:
    """The loss, or NaN if the step must be skipped: no token was sampled, or a reward or log-probability is not finite.

    Such values need not show in the loss or its gradient. A group of equal infinite rewards has advantages of 0, a
    ratio of 1 hides a NaN of the engine, and an empty batch has a loss of 0. The optimizer skips a step whose loss is
    NaN. A teacher log-probability of -inf needs no check: it makes the loss non-finite if the teacher term is on, and
    otherwise it is only measured.
    """
    sums = totals.sums
    learnable = sums["tokens"] and not sums["nonfinite_rewards"] and not sums["nonfinite_logprobs"]
    return loss if learnable else math.nan


@dataclass(frozen=True, slots=True)
class Alarm:
    """A warning about a run.

    name: the metric that is 1 when the alarm is raised. needs: the metric that a row must have to be checked.
    raised: whether a row raises the alarm, given the first value of each metric and the limits. text: the warning,
    formatted with the row. quiet: number of steps for which the alarm must be off before it is logged again.
    """

    name: str
    needs: str
    raised: Callable[[MetricsRow, MetricsRow, HealthConfig], bool]
    text: str
    quiet: int = 10


def _number(row: MetricsRow, name: str) -> float:
    """The value, or NaN if it is missing. Every comparison with NaN is false."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _kl_exploded(row: MetricsRow, first: MetricsRow, limits: HealthConfig) -> bool:
    name = "kl_exact" if row.get("kl_exact") is not None else "kl_sampled"
    return _number(row, name) > max(limits.kl_growth * _number(first, name), limits.kl_minimum)


ALARMS: tuple[Alarm, ...] = (
    Alarm(
        "skipped", "skipped",
        lambda row, first, limits: bool(row["skipped"]),
        "the step was skipped and the weights are unchanged: loss {loss}, gradient norm {gradient_norm}, "
        "{tokens} tokens; not finite are {nonfinite_rewards} rewards, {nonfinite_logprobs} log-probabilities of the "
        "student and {nonfinite_teacher_logprobs} of the teacher",
        quiet=0,
    ),
    Alarm(
        "warn_teacher", "nonfinite_teacher_logprobs",
        lambda row, first, limits: _number(row, "nonfinite_teacher_logprobs") > 0,
        "the teacher's log-probability of {nonfinite_teacher_logprobs} of {tokens} tokens is not finite; "
        "run `vold-bench preflight` to compare the two vocabularies",
    ),
    Alarm(
        "warn_entropy", "entropy",
        lambda row, first, limits: _number(row, "entropy") < limits.entropy_share * _number(first, "entropy"),
        "the entropy collapsed to {entropy} nats per token, so the student hardly explores; "
        "raise clip_high or lower the learning rate",
    ),
    Alarm(
        "warn_truncation", "truncated_share",
        lambda row, first, limits: _number(row, "truncated_share") > limits.truncated_share,
        "a share of {truncated_share} of the completions hit the length limit; raise max_new_tokens",
    ),
    Alarm(
        "warn_kl", "kl_sampled",
        _kl_exploded,
        "the student drifts away from the teacher: KL {kl_exact} (exact), {kl_sampled} (sampled) nats per token; "
        "lower the learning rate or raise distill.weight",
    ),
    Alarm(
        "warn_signal", "reward_zero_variance_share",
        lambda row, first, limits: row["reward_zero_variance_share"] == 1,
        "in every group all rewards are equal (mean {reward_mean}), so the policy term has no gradient; "
        "use prompts that the student sometimes solves",
    ),
    Alarm(
        "warn_mismatch", "mismatch_outside_share",
        lambda row, first, limits: _number(row, "mismatch_outside_share") > limits.mismatch_share,
        "engine and trainer disagree by more than 10 % in probability on a share of {mismatch_outside_share} of the "
        "tokens; use the same precision for both, or set engine_correction",
    ),
)  # fmt: skip


class Health:
    """Checks the rows of a run: logs a warning when an alarm is raised, and returns which alarms are."""

    def __init__(self, limits: HealthConfig, earlier: Iterable[MetricsRow] = ()) -> None:
        """earlier: the rows before a resume. They set the first values and are not logged again."""
        self.limits = limits
        self.first: dict[str, float | int | None] = {}
        self.last_raised: dict[str, int] = {}
        for row in earlier:
            self._raised(row)

    def check(self, row: MetricsRow) -> dict[str, int]:
        """0 or 1 for each alarm whose metric the row has; logs the alarms that are raised after a pause."""
        previous = dict(self.last_raised)
        flags = self._raised(row)
        step = int(row["step"] or 0)
        for alarm in ALARMS:
            was_quiet = step - previous.get(alarm.name, -alarm.quiet) > alarm.quiet
            if flags.get(alarm.name) and was_quiet:
                _log.warning("step %d: %s", step, alarm.text.format_map(_FormattedRow(row)))
        return flags

    def _raised(self, row: MetricsRow) -> dict[str, int]:
        finite = {name: value for name, value in row.items() if value is not None and math.isfinite(value)}
        self.first = finite | self.first
        flags = {a.name: int(a.raised(row, self.first, self.limits)) for a in ALARMS if a.needs in row}
        self.last_raised |= {name: int(row["step"] or 0) for name, flag in flags.items() if flag}
        return flags


class _FormattedRow(dict[str, str]):
    """The values of a row with three significant digits. A missing value is a dash."""

    def __init__(self, row: MetricsRow) -> None:
        super().__init__({name: "-" if value is None else f"{value:.3g}" for name, value in row.items()})

    def __missing__(self, name: str) -> str:
        return "-"
