"""Guards over a run: steps that must not be taken, and warnings when a run goes where it does not recover from."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vold.config import HealthConfig

if TYPE_CHECKING:
    from vold.training.metrics import Totals

_log = logging.getLogger(__name__)

MetricsRow = Mapping[str, float | int | None]


def guarded_loss(loss: float, totals: "Totals") -> float:
    """The loss, or NaN (which the optimiser skips) where what it was computed from cannot be learned from.

    An infinite reward can hide behind an all-equal group, a NaN of the engine behind a ratio of 1, and an empty batch
    has a loss of 0: none of them would be seen in the loss or its gradient. A teacher log-probability of -inf makes the
    loss itself non-finite where the teacher's term is on, and where it is only watched it concerns no update.
    """
    sums = totals.sums
    learnable = sums["tokens"] and not sums["nonfinite_rewards"] and not sums["nonfinite_logprobs"]
    return loss if learnable else math.nan


@dataclass(frozen=True, slots=True)
class Alarm:
    """``raised`` looks at a row, each metric's first value, and the limits; ``text`` is formatted with the row.

    It is told again when it was off for ``quiet`` steps.
    """

    name: str
    needs: str
    raised: Callable[[MetricsRow, MetricsRow, HealthConfig], bool]
    text: str
    quiet: int = 10


def _number(row: MetricsRow, name: str) -> float:
    """The value, NaN where there is none: every comparison with it is false."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def _kl_exploded(row: MetricsRow, first: MetricsRow, limits: HealthConfig) -> bool:
    name = "kl_exact" if row.get("kl_exact") is not None else "kl_sampled"
    return _number(row, name) > max(limits.kl_growth * _number(first, name), limits.kl_minimum)


ALARMS: tuple[Alarm, ...] = (
    Alarm(
        "skipped", "skipped",
        lambda row, first, limits: bool(row["skipped"]),
        "the step was skipped, the weights are as before: loss {loss}, gradient norm {grad_norm}, not finite: "
        "{nonfinite_rewards} rewards, {nonfinite_logprobs} log-probabilities, {nonfinite_teacher_logprobs} of the "
        "teacher's; {tokens} tokens",
        quiet=0,
    ),
    Alarm(
        "warn_teacher", "nonfinite_teacher_logprobs",
        lambda row, first, limits: _number(row, "nonfinite_teacher_logprobs") > 0,
        "the teacher gave {nonfinite_teacher_logprobs} of {tokens} tokens no finite log-probability; "
        "`vold-bench preflight` compares the two vocabularies",
    ),
    Alarm(
        "warn_entropy", "entropy",
        lambda row, first, limits: _number(row, "entropy") < limits.entropy_share * _number(first, "entropy"),
        "the entropy collapsed to {entropy} nats a token: the student hardly explores; "
        "raise clip_high or lower the learning rate",
    ),
    Alarm(
        "warn_truncation", "truncated_share",
        lambda row, first, limits: _number(row, "truncated_share") > limits.truncated_share,
        "{truncated_share} of the completions hit the length limit; raise max_new_tokens",
    ),
    Alarm(
        "warn_kl", "kl_sampled",
        _kl_exploded,
        "the student runs away from the teacher: KL exact {kl_exact}, sampled {kl_sampled} nats a token; "
        "lower the learning rate or raise distill.weight",
    ),
    Alarm(
        "warn_signal", "reward_zero_variance_share",
        lambda row, first, limits: row["reward_zero_variance_share"] == 1,
        "in every group all rewards are equal (mean {reward_mean}): the policy term has no gradient",
    ),
    Alarm(
        "warn_mismatch", "mismatch_outside_share",
        lambda row, first, limits: _number(row, "mismatch_outside_share") > limits.mismatch_share,
        "engine and trainer disagree on {mismatch_outside_share} of the tokens by more than a tenth; "
        "are both in the same precision?",
    ),
)  # fmt: skip


class Health:
    """Watches the rows of a run. It logs when an alarm is raised, and each row says which are."""

    def __init__(self, limits: HealthConfig, earlier: Iterable[MetricsRow] = ()) -> None:
        """``earlier`` are the rows before a resume: they count, and are not told again."""
        self.limits = limits
        self.first: dict[str, float | int | None] = {}
        self.last_raised: dict[str, int] = {}
        for row in earlier:
            self._raised(row)

    def check(self, row: MetricsRow) -> dict[str, int]:
        """0 or 1 for each alarm that this kind of row can raise."""
        before = dict(self.last_raised)
        flags = self._raised(row)
        step = int(row["step"] or 0)
        for alarm in ALARMS:
            silent = step - before.get(alarm.name, -alarm.quiet) > alarm.quiet
            if flags.get(alarm.name) and silent:
                _log.warning("step %d: %s", step, alarm.text.format_map(_Shown(row)))
        return flags

    def _raised(self, row: MetricsRow) -> dict[str, int]:
        finite = {name: value for name, value in row.items() if value is not None and math.isfinite(value)}
        self.first = finite | self.first
        flags = {a.name: int(a.raised(row, self.first, self.limits)) for a in ALARMS if a.needs in row}
        self.last_raised |= {name: int(row["step"] or 0) for name, flag in flags.items() if flag}
        return flags


class _Shown(dict[str, str]):
    """A row's values as a sentence shows them; what the row lacks is a dash."""

    def __init__(self, row: MetricsRow) -> None:
        super().__init__({name: "-" if value is None else f"{value:.3g}" for name, value in row.items()})

    def __missing__(self, name: str) -> str:
        return "-"
