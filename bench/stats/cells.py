"""From judged responses to the cells that every statistic here starts from: one score a (seed, item)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

Aggregate = Literal["macro", "micro"]
CELL_KEY = ["benchmark", "id", "seed"]


@dataclass(frozen=True, slots=True)
class Cells:
    """Scores in a seeds x items layout, stored long; all arrays have shape [cells].

    ``score`` is an accuracy in [0, 1] or a paired difference in [-1, 1] (mean over the item's samples);
    ``stratum``, ``seed`` and ``cluster`` are codes from 0. A cluster lies in exactly one stratum (benchmark).
    """

    score: np.ndarray
    stratum: np.ndarray
    seed: np.ndarray
    cluster: np.ndarray
    items: int
    samples: int

    @property
    def strata(self) -> int:
        return int(self.stratum.max()) + 1

    @property
    def seeds(self) -> int:
        return int(self.seed.max()) + 1

    @property
    def clusters(self) -> int:
        return int(self.cluster.max()) + 1

    @property
    def plain(self) -> bool:
        """True when items are independent, of one benchmark, and seen once: exact methods apply."""
        return self.strata == 1 and self.seeds == 1 and self.clusters == self.items == self.samples

    def weights(self, aggregate: Aggregate) -> np.ndarray:
        """Weight of each cell in the estimate; sums to 1. Macro: every benchmark counts the same."""
        if aggregate == "micro":
            return np.full(len(self.score), 1 / len(self.score))
        counts = np.bincount(self.stratum, minlength=self.strata)
        return 1 / (self.strata * counts[self.stratum])


def to_cells(scores: pd.DataFrame) -> Cells:
    """Cells of a table with the columns benchmark, id, cluster, seed, score (a row each sample).

    Raises:
        ValueError: no rows, or a score that is not finite.
    """
    if scores.empty:
        raise ValueError("no responses to average: check that the evaluation stages of these arms have finished")
    if not np.isfinite(scores["score"].to_numpy(float)).all():
        raise ValueError("a score is not finite: a missing response must be an absent row")
    stratum, item, seed, cluster = (pd.factorize(scores[name])[0] for name in ("benchmark", "id", "seed", "cluster"))
    item = stratum * (item.max() + 1) + item
    cluster = stratum * (cluster.max() + 1) + cluster
    _, first, cell, samples = np.unique(
        item * (seed.max() + 1) + seed, return_index=True, return_inverse=True, return_counts=True
    )
    return Cells(
        score=np.bincount(cell, scores["score"].to_numpy(float)) / samples,
        stratum=stratum[first],
        seed=seed[first],
        cluster=np.unique(cluster[first], return_inverse=True)[1],
        items=len(np.unique(item)),
        samples=len(scores),
    )


@dataclass(frozen=True, slots=True)
class Pairing:
    """Samples that two arms share, and how many each lacks of those the other has."""

    common: pd.DataFrame
    missing_test: int
    missing_against: int


def pair(test: pd.DataFrame, against: pd.DataFrame) -> Pairing:
    """Join two arms on (benchmark, id, seed, sample); ``common.score`` is test minus against."""
    key: Sequence[str] = [*CELL_KEY, "sample"]
    columns = [*key, "cluster", "correct"]
    joined: Any = test[columns].merge(
        against[columns], on=list(key), how="outer", suffixes=("", "_against"), indicator=True, validate="one_to_one"
    )
    where = joined["_merge"]
    common = joined[where == "both"].copy()
    common["score"] = common["correct"].astype(float) - common["correct_against"].astype(float)
    return Pairing(common, int((where == "right_only").sum()), int((where == "left_only").sum()))
