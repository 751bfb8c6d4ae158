"""Cells: one score per training run and problem (item). Every statistic of this package starts from them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.records import Frame

Aggregate = Literal["macro", "micro"]
RUN_KEY = ["student", "seed"]
SAMPLE_KEY = ["benchmark", "id", *RUN_KEY, "sample"]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cells:
    """Scores per training run and item, in long form. Every array has shape [cells].

    score: an accuracy in [0, 1], or a paired difference in [-1, 1]; a mean over the samples of the item.
    stratum: number of the benchmark, from 0.
    student: number of the student that the run trained, from 0.
    run: number of the training run, from 0. A run is one seed of one student.
    cluster: number of the group of items with a common source, from 0. A cluster belongs to one stratum.
    items, samples: counts of the items and of the responses behind the scores.
    """

    score: FloatArray
    stratum: IntArray
    student: IntArray
    run: IntArray
    cluster: IntArray
    items: int
    samples: int

    @property
    def strata(self) -> int:
        return int(self.stratum.max()) + 1

    @property
    def students(self) -> int:
        return int(self.student.max()) + 1

    @property
    def runs(self) -> int:
        return int(self.run.max()) + 1

    @property
    def clusters(self) -> int:
        return int(self.cluster.max()) + 1

    @property
    def plain(self) -> bool:
        """Whether exact methods apply: independent items of one benchmark, one run, one sample per item."""
        return self.strata == 1 and self.runs == 1 and self.clusters == self.items == self.samples

    def weights(self, aggregate: Aggregate) -> FloatArray:
        """Weight of each cell in the mean, shape [cells], with sum 1.

        Every student counts the same, however many of its runs there are. Macro: every benchmark counts the same.
        """
        stratum = self.stratum if aggregate == "macro" else np.zeros_like(self.stratum)
        group = stratum * self.students + self.student
        counts = np.bincount(group, minlength=(int(stratum.max()) + 1) * self.students)
        students = np.sum(counts.reshape(-1, self.students) > 0, 1)
        return 1 / (len(students) * students[stratum] * counts[group])


def one_run(rows: Frame) -> Frame:
    """The rows of a single evaluation with the columns that name a training run."""
    return rows.assign(student="", seed=0)


def to_cells(scores: Frame) -> Cells:
    """Cells of a table with the columns benchmark, id, cluster, student, seed and score, one row per sample.

    Raises ValueError for a table without rows and for a score that is not finite.
    """
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]  # slow, and planning needs only the types

    if scores.empty:
        raise ValueError("no responses to average; check that the evaluation stages of these arms have finished")
    if not np.isfinite(scores["score"].to_numpy(float)).all():
        raise ValueError("a score is not finite; leave the row of a missing response out")
    stratum, item, student, seed, cluster = (
        pd.factorize(scores[name])[0]  # pyright: ignore[reportUnknownMemberType]
        for name in ("benchmark", "id", *RUN_KEY, "cluster")
    )
    # An id or a cluster of the same name in another benchmark is another one.
    item = stratum * (item.max() + 1) + item
    cluster = stratum * (cluster.max() + 1) + cluster
    run = np.unique(student * (seed.max() + 1) + seed, return_inverse=True)[1]
    _, first, cell, samples = np.unique(
        item * (run.max() + 1) + run, return_index=True, return_inverse=True, return_counts=True
    )
    return Cells(
        score=np.bincount(cell, scores["score"].to_numpy(float)) / samples,
        stratum=stratum[first],
        student=student[first],
        run=run[first],
        cluster=np.unique(cluster[first], return_inverse=True)[1],
        items=len(np.unique(item)),
        samples=len(scores),
    )


@dataclass(frozen=True, slots=True)
class Pairing:
    """The samples that several arms share, with a column ``score``.

    missing: number of samples that some of the arms have and others lack.
    """

    common: Frame
    missing: int


def pair(test: Frame, against: Frame, over: tuple[Frame, Frame] | None = None) -> Pairing:
    """Join arms on benchmark, id, student, seed and sample.

    The score is test minus against. With ``over`` it is a difference of gains: that of test over the first of these
    arms, minus that of against over the second.
    """
    signed = [(1, test), (-1, against)]
    if over is not None:
        signed += [(-1, over[0]), (1, over[1])]
    joined: Frame = test[[*SAMPLE_KEY, "cluster"]]
    for number, (_, arm) in enumerate(signed):
        scores = arm[[*SAMPLE_KEY, "correct"]].rename(columns={"correct": number})
        joined = joined.merge(scores, on=SAMPLE_KEY, how="outer", validate="one_to_one")
    columns = list(range(len(signed)))
    complete = joined[columns].notna().all(axis=1)
    common = joined[complete].copy()
    common["score"] = sum(sign * common[number].astype(float) for number, (sign, _) in enumerate(signed))
    return Pairing(common, int((~complete).sum()))
