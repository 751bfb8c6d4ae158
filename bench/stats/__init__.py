"""Intervals, paired tests, power and verdicts."""

from bench.stats.cells import Aggregate, Cells, Pairing, pair, to_cells
from bench.stats.decisions import ALPHA, ContrastVerdict, holm, items_needed, outcome, seeds_needed
from bench.stats.estimates import LEVEL, POWER, Accuracy, Difference, accuracy, compare, mcnemar
from bench.stats.samples import pass_at, sample_metrics
from bench.stats.variance import Spread, mean_and_spread

__all__ = [
    "ALPHA",
    "LEVEL",
    "POWER",
    "Accuracy",
    "Aggregate",
    "Cells",
    "ContrastVerdict",
    "Difference",
    "Pairing",
    "Spread",
    "accuracy",
    "compare",
    "holm",
    "items_needed",
    "mcnemar",
    "mean_and_spread",
    "outcome",
    "pair",
    "pass_at",
    "sample_metrics",
    "seeds_needed",
    "to_cells",
]
